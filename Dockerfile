# The search page and the embedding API on CPUs.
#
#     docker build -t mmembed .
#     docker run -p 8000:8000 -v ~/Pictures:/media -e MMEMBED_API_KEY=$(openssl rand -hex 24) mmembed
#
# Index the folder first:
#     docker run -v ~/Pictures:/media mmembed index /media
# Without a folder, the API alone:
#     docker run -p 8000:8000 -e MMEMBED_API_KEY=... mmembed serve --host 0.0.0.0
FROM python:3.11-slim

# torch for CPUs: the usual wheels bring two gigabytes of CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN useradd --create-home --uid 1000 mmembed
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY configs ./configs
COPY mmembed ./mmembed
COPY codeembed ./codeembed
COPY constraints ./constraints
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" -c constraints/light.txt ".[server]"

USER 1000
ENV HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["mmembed"]
CMD ["serve", "/media", "--host", "0.0.0.0"]
