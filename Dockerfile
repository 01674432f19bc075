# Everything that the batch needs, in the versions of requirements.lock.
#
#   docker build -t mmmil .
#   docker run --rm -v "$PWD:/work" -w /work mmmil python workflow/run.py --tasks lgg --overlay demo
#   apptainer build mmmil.sif docker-daemon://mmmil:latest        (for a cluster: see README.md)
#
# The code that runs is that of the folder it is started in; the image brings Python and the libraries.
FROM debian:bookworm-slim
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    ca-certificates git make python3 python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/mmmil
COPY . .
RUN make env && rm -rf /root/.cache
ENV PATH=/opt/mmmil/.venv/bin:/usr/local/bin:/usr/bin:/bin
CMD ["python", "-m", "mmmil", "--help"]
