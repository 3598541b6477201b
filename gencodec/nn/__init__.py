"""Networks shared by the methods; `exact` holds the layers whose outputs are the same bits everywhere."""
