# Runs the quick start and leaves its report, from the root of the repository:
#   docker build -f configs/serving/quickstart.Dockerfile -t l2p_tf-quickstart .
#   docker run -v "$PWD/runs:/app/runs" --user "$(id -u)" l2p_tf-quickstart
FROM python:3.12-slim
WORKDIR /app
COPY pyproject.toml constraints.txt README.md ./
COPY l2p_tf l2p_tf
COPY stages stages
RUN pip install --no-cache-dir -c constraints.txt .
ENV HOME=/tmp
ENTRYPOINT ["python", "-m", "stages.pipeline"]
CMD ["--config=quickstart"]
