"""Run the whole example until Ctrl-C: `python -m stock_api.serve`, or `make serve`."""

import os
import signal
import sys
from contextlib import suppress

from stock_api.fleet import Fleet, FleetError, fleet, interrupt_on_termination


def main() -> int:
    interrupt_on_termination()
    try:
        with fleet(market=os.environ.get("STOCK_MARKET", "local")) as running:
            print(_welcome(running), flush=True)
            with suppress(KeyboardInterrupt):
                signal.pause()
            print("\nstopping", flush=True)
    except KeyboardInterrupt:
        return 130
    except FleetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _welcome(running: Fleet) -> str:
    workers = " and ".join(map(str, sorted(running.workers)))
    return f"""\
the API        {running.api}   workers {workers}; docs at /docs
the dashboard  {running.api}/cache/dashboard   what the caches of one worker do
slow market    {running.upstream}   2-3 s an answer; how many, at /calls
Valkey         {running.valkey.url}

Each line twice, and look at the time; X-Worker says which process answered:

  curl -si -w '%{{time_total}} s\\n' {running.api}/quotes/005930.KS
  curl -si -w '%{{time_total}} s\\n' '{running.api}/quotes/AAPL/history?period=1mo'
  curl -si -w '%{{time_total}} s\\n' {running.api}/companies/035420.KS
  curl -si -w '%{{time_total}} s\\n' {running.api}/companies/NVDA/news
  curl -s {running.api}/stats

Ctrl-C ends all of it."""


if __name__ == "__main__":
    sys.exit(main())
