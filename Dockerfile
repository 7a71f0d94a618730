# CUDA runtime for training; the Python packages bring their own CUDA libraries.
FROM nvidia/cuda:13.1.1-runtime-ubuntu24.04

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv python3-dev gcc g++ \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --shell /bin/bash maskpre
USER maskpre
WORKDIR /home/maskpre/app
ENV PATH=/home/maskpre/venv/bin:$PATH PIP_NO_CACHE_DIR=1

COPY --chown=maskpre pyproject.toml README.md LICENSE .docker/constraints.txt ./
COPY --chown=maskpre configs configs
COPY --chown=maskpre maskpre maskpre
RUN python3 -m venv /home/maskpre/venv && pip install -c constraints.txt .

ENTRYPOINT ["python", "-m", "maskpre.train"]
