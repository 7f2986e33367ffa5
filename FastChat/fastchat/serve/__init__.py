"""Controller, model workers and the engine behind them."""
