"""One outbound call: the effects it asks for, the flow that asks, the drivers that answer."""
