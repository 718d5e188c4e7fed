"""A TCP relay that delivers every byte a fixed time after it came: a long cable for `ssh`, where the kernel
has no netem. Started as a program: `relay.py DELAY_MS LISTEN_ADDRESS=TARGET_ADDRESS ...`, port 22 on
both sides; says `up` when it listens. The connection itself is made at once; only data is late.
"""

from __future__ import annotations

import asyncio
import sys

PORT = 22
CHUNK = 65536
# How much may be under way in one direction: enough for any window that ssh opens.
CHUNKS_UNDER_WAY = 256


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    clock = asyncio.get_running_loop().time
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_UNDER_WAY)

    async def collect() -> None:
        data = b"start"
        while data:
            try:
                data = await reader.read(CHUNK)
            except OSError:
                data = b""
            await under_way.put((clock() + delay_s, data))

    collector = asyncio.create_task(collect())
    try:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(max(0.0, due - clock()))
            if not data:
                return
            writer.write(data)
            await writer.drain()
    except OSError:
        return
    finally:
        collector.cancel()
        writer.close()


async def serve(listen: str, target: str, delay_s: float) -> asyncio.Server:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            target_reader, target_writer = await asyncio.open_connection(target, PORT)
        except OSError:
            writer.close()
            return
        await asyncio.gather(carry(reader, target_writer, delay_s), carry(target_reader, writer, delay_s))

    return await asyncio.start_server(relay, listen, PORT)


async def main() -> None:
    # Half of the round trip in each direction.
    delay_s = float(sys.argv[1]) / 2000
    for pair in sys.argv[2:]:
        listen, target = pair.split("=")
        await serve(listen, target, delay_s)
    print("up", flush=True)  # noqa: T201 - whoever started this program waits for it
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
