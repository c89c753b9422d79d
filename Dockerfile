# The web page in a container:
#     docker build -t spoof-page .
#     docker run --rm -p 127.0.0.1:8501:8501 -v "$PWD/runs:/app/runs:ro" spoof-page
# Without the -v only the detectors of pretrained/ are offered. Beyond this machine put HTTPS before it: browsers
# give a microphone to no other page.
FROM python:3.11-slim-bookworm

# lines of the log appear when they are printed
ENV PYTHONUNBUFFERED=1
WORKDIR /app

# before the code, so that an edit of the code installs nothing again; pip compiles, which halves the start
COPY requirements.txt requirements-app.txt ./
RUN pip install --no-cache-dir -r requirements-app.txt \
    && useradd --create-home --uid 10001 page

# what .dockerignore lets through; owned by root, so the page cannot change it
COPY . .

# uploads are decoded by C libraries: whoever breaks one is not root
USER 10001
EXPOSE 8501
# no curl in a slim image
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://localhost:8501/_stcore/health', timeout=4)"]
CMD ["python", "-m", "streamlit", "run", "app.py", "--server.address=0.0.0.0", "--server.port=8501"]
