# The studio as a hosted page: docker build -t pixelcnn . && docker run -p 7860:7860 pixelcnn
# The models of faces and of CIFAR-10, in zoo, are for non-commercial research: leave out ./zoo for any other use.
FROM python:3.11-slim

RUN useradd --create-home --uid 1000 user
COPY --chown=user . /home/user/pixelcnn
WORKDIR /home/user/pixelcnn
RUN pip install --no-cache-dir --constraint constraints.txt --index-url https://download.pytorch.org/whl/cpu torch \
    && pip install --no-cache-dir --constraint constraints.txt '.[studio,jxl]' ./zoo

USER user
WORKDIR /home/user
EXPOSE 7860
CMD ["pixelcnn", "studio", "--host", "0.0.0.0", "--port", "7860", "--no-browser", "--name", "*"]
