# What `experiments.launch --target=gke` runs: jattn, its experiments, libtpu and Google's storage.
FROM python:3.12-slim
WORKDIR /jattn
COPY pyproject.toml README.md LICENSE ./
COPY jattn jattn
COPY experiments experiments
COPY configs configs
RUN pip install --no-cache-dir --editable '.[tpu,gcs]'
