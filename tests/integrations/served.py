"""What `test_served_pages.py` serves with uvicorn: an application whose responses are cached on the server that
`SERVER_URL` names."""

import asyncio
import os

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from layercache import configure
from layercache.integrations.asgi import ResponseCache
from layercache.integrations.fastapi import lifespan

configure(
    {
        "backends": {
            "near": {"type": "memory"},
            "far": {"type": "redis", "url": os.environ["SERVER_URL"], "prefix": os.environ["PREFIX"]},
            "layered": {"type": "chain", "layers": ["near", "far"]},
        },
        "caches": {"pages": {"backend": "layered", "ttl": "1m"}},
    }
)

app = FastAPI(lifespan=lifespan("pages"))
app.add_middleware(ResponseCache, cache="pages")
done = {"made": 0, "streams_ended": 0}


@app.get("/slow")
async def slow() -> PlainTextResponse:
    done["made"] += 1
    await asyncio.sleep(0.1)
    return PlainTextResponse("made", headers={"Cache-Control": "max-age=60"})


@app.get("/ticks")
async def ticks() -> StreamingResponse:
    async def endless():
        try:
            while True:
                yield "data: tick\n\n"
                await asyncio.sleep(0.005)
        finally:
            done["streams_ended"] += 1

    return StreamingResponse(endless(), media_type="text/event-stream")


@app.get("/done")
async def tell(response: Response) -> dict[str, int]:
    response.headers["Cache-Control"] = "no-store"
    return done
