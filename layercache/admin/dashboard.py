from fastapi import Response


def page() -> Response:
    return Response("", media_type="text/html")
