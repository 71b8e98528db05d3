"""`parley load`: people who talk and haggle, thousands at once, and whether what they were told was right.

One process hands out the people and gathers figures (`running`); workers hold the sockets (`worker`), each of them a
`person` on a `line`, who takes part in a `talk` or haggles at a table (`haggle`). What is checked is pure and knows no
socket: `ledger` for rooms and their messages, `telling` and `deals` for negotiation.
"""
