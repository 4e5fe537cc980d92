"""What the worker counts in its tests: an app with routes of all kinds, and no word of metrics."""

import asyncio
from pathlib import Path

from fastapi import APIRouter, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

app = FastAPI()
shop = APIRouter(prefix="/shop")
part = FastAPI()


@app.get("/items/{item_id}")
async def item(item_id: int):
    return {"id": item_id}


@app.post("/items")
async def make():
    return {}


@app.get("/raises")
async def raises():
    raise RuntimeError("on purpose")


@app.get("/breaks")
async def breaks():
    async def half():
        yield b"half"
        raise RuntimeError("on purpose")

    return StreamingResponse(half())


@app.get("/slow")
async def slow():
    await asyncio.sleep(0.3)
    return {}


@app.get("/events")
async def events():
    async def forever():
        while True:
            yield b": still here\n\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(forever(), media_type="text/event-stream")


@app.websocket("/chat/{room}")
async def chat(websocket: WebSocket, room: str):
    if room == "closed":
        await websocket.close()
        return
    await websocket.accept()
    async for _ in websocket.iter_text():
        pass


@shop.get("/orders/{order}")
async def order(order: str):
    return {}


@part.get("/pages/{page}")
async def page(page: str):
    return {}


app.include_router(shop, prefix="/v1")
app.mount("/part", part)
app.mount("/static", StaticFiles(directory=Path(__file__).parent))
app.router.routes.append(Mount("/of/{customer:int}", app=part))
