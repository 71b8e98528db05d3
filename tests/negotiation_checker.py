"""What must hold between listings, negotiations, offers, deals and what was pushed of them, asked of the database.

Written from the model's words and not from the code: each law is a query for its breaches, over all rows at once. A
law of pushes reads the room logs, which must not have been swept.
"""

from __future__ import annotations

import asyncpg

SHOWN = 5  # breaches of one law

# The laws read these: every offer with where it stands, every deal with what it holds, and what was told.
_SNAPSHOT = """
create temp table o as
select o.*, n.buyer_id, n.seller_id, n.conversation_id, n.status as stands, n.turn, n.max_rounds, n.current_offer_id,
       o.round = max(o.round) over (partition by o.negotiation_id) as is_last,
       case when o.status in ('pending', 'accepted') then o.status else o.close_reason end as state
  from offers o
  join negotiations n using (negotiation_id);

create temp table deals as
select t.*, r.quantity as held, r.status as holds
  from transactions t
  left join reservations r using (transaction_id);

create temp table told as
select room_id, seq, name, said, (said ->> 'version')::int as version,
       (said ->> case name when 'offer:changed' then 'offer_id' when 'negotiation:changed' then 'negotiation_id'
                           when 'transaction:changed' then 'transaction_id' else 'listing_id' end)::uuid as id
  from (select room_id, seq, name, payload::jsonb as said from room_events
         where name in ('offer:changed', 'negotiation:changed', 'transaction:changed',
                        'listing:changed', 'listing:sold', 'listing:closed', 'listing:expired')) events;

create temp table last_told as
select distinct on (room_id, id, split_part(name, ':', 1)) room_id, id, split_part(name, ':', 1) as noun, said
  from told order by room_id, id, split_part(name, ':', 1), seq desc;

create index on o (offer_id);
create index on o (parent_offer_id);
create index on o (negotiation_id);
create index on deals (offer_id);
create index on last_told (id, room_id);
analyze o;
analyze deals;
analyze last_told;
"""

LAWS: dict[str, str] = {
    "stock is what is reserved": """
        select l.listing_id, l.reserved, l.sold, h.held, h.sold
          from listings l
         cross join lateral (
               select coalesce(sum(quantity) filter (where status = 'held'), 0) as held,
                      coalesce(sum(quantity) filter (where status = 'sold'), 0) as sold
                 from reservations where listing_id = l.listing_id) h
         where (l.reserved, l.sold) <> (h.held, h.sold) or l.reserved + l.sold > l.quantity""",
    "a listing's status is its stock's": """
        select listing_id, status, quantity, reserved, sold from listings
         where status in ('active', 'reserved', 'sold')
           and status <> case when sold = quantity then 'sold' when reserved + sold = quantity then 'reserved'
                              else 'active' end""",
    "one offer is on the table": """
        select negotiation_id, count(*) from o where status = 'pending' group by negotiation_id having count(*) > 1""",
    "one negotiation a listing and buyer": """
        select listing_id, buyer_id from negotiations where status in ('open', 'agreed')
         group by listing_id, buyer_id having count(*) > 1""",
    "rounds are counted": """
        select n.negotiation_id, n.round, n.max_rounds, count(o.offer_id), max(o.round)
          from negotiations n
          left join o on o.negotiation_id = n.negotiation_id
         group by n.negotiation_id
        having n.round <> count(o.offer_id) or n.round <> coalesce(max(o.round), 0) or n.round > n.max_rounds""",
    "the current offer is the last": """
        select negotiation_id, offer_id from o where is_last <> (offer_id = current_offer_id)""",
    "what came before is over": """
        select negotiation_id, offer_id, state from o
         where not is_last
           and state not in ('countered', 'declined', 'auto_declined', 'withdrawn', 'superseded', 'timeout')""",
    "a negotiation stands as its last offer says": """
        select negotiation_id, offer_id, state, stands, turn, round, max_rounds from o
         where is_last and not case
               when state = 'pending' then stands = 'open'
                    and turn = case maker_id when buyer_id then 'seller' else 'buyer' end
               when state = 'accepted' then stands in ('agreed', 'completed') and turn = 'none'
               when state in ('declined', 'auto_declined') then
                    (stands = 'open' and turn = 'buyer' and round < max_rounds) or (stands = 'closed' and turn = 'none')
               when state in ('withdrawn', 'timeout') then
                    turn = 'none' and ((stands = 'open' and round < max_rounds) or stands = 'closed')
               when state in ('listing_sold', 'listing_closed', 'blocked', 'payment_lapsed') then
                    stands = 'closed' and turn = 'none'
               else false end""",
    "a child follows its parent": """
        select c.offer_id, p.offer_id, p.state, c.round, p.round
          from o c
          join o p on p.offer_id = c.parent_offer_id
         where p.negotiation_id <> c.negotiation_id or p.round + 1 <> c.round or p.state <> 'countered'
            or p.maker_id = c.maker_id""",
    "a countered offer has a child": """
        select p.offer_id from o p
         where p.state = 'countered' and not exists (select from o c where c.parent_offer_id = p.offer_id)""",
    "nothing is on the table where nothing is left": """
        select o.offer_id, l.listing_id, l.status from o
          join listings l using (listing_id)
         where o.status = 'pending' and (l.status in ('closed', 'expired', 'sold') or l.deleted_at is not null)""",
    "what has ended is written": """
        select n.negotiation_id, e.move, e.moment from negotiations n
          join endings e on e.listing_id = n.listing_id
           or (e.low_user_id in (n.buyer_id, n.seller_id) and e.high_user_id in (n.buyer_id, n.seller_id))
         where n.status = 'open' and n.opened < e.moment""",
    "an accepted offer is one deal": """
        select o.offer_id, o.status, o.stands, array_agg(d.status) as deals
          from o
          left join deals d on d.offer_id = o.offer_id
         group by o.offer_id, o.status, o.stands
        having (o.status = 'accepted')
               <> (count(d.*) filter (where d.status in ('pending', 'completed', 'refunded')) = 1)
            or count(d.*) > 1
            or (o.status = 'accepted' and (o.stands = 'completed')
                <> (count(d.*) filter (where d.status in ('completed', 'refunded')) = 1))""",
    "a deal is about what was agreed": """
        select d.transaction_id from deals d
          join o using (offer_id)
         where d.subtotal <> o.price_amount * o.quantity or d.quantity <> o.quantity or d.currency <> o.price_currency
            or (d.buyer_id, d.seller_id, d.listing_id) <> (o.buyer_id, o.seller_id, o.listing_id)""",
    "a deal holds its stock": """
        select transaction_id, status, held, holds from deals
         where held is distinct from quantity
            or holds <> case status when 'pending' then 'held' when 'completed' then 'sold'
                                    when 'refunded' then 'sold' else 'released' end""",
    "an offer stands in its conversation once": """
        select o.offer_id, count(m.*) from o
          left join messages m
            on m.offer_id = o.offer_id and m.conversation_id = o.conversation_id and m.type = 'offer'
           and m.sender_id = o.maker_id
         group by o.offer_id having count(m.*) <> 1""",
    "a room's log has no hole": """
        select r.room_id, r.kind, r.last_seq, count(e.seq), max(e.seq)
          from rooms r
          left join room_events e using (room_id)
         group by r.room_id
        having r.last_seq <> count(e.seq) or r.last_seq <> coalesce(max(e.seq), 0)""",
    "the last push of an offer is the offer": """
        select v.offer_id, v.version, v.status, p.said from offer_objects v
          join negotiations n using (negotiation_id)
          left join last_told p on p.id = v.offer_id and p.room_id = n.conversation_id and p.noun = 'offer'
         where p.said is null or p.said - 'expires_at' <> to_jsonb(v) - 'expires_at'""",
    "the last push of a negotiation is the negotiation": """
        select v.negotiation_id, u.user_id, v.version, p.said from negotiation_objects v
         cross join lateral (values (v.buyer_id), (v.seller_id)) u (user_id)
          left join last_told p on p.id = v.negotiation_id and p.room_id = u.user_id and p.noun = 'negotiation'
         where p.said is null or p.said ->> 'rivals' is not null
            or (p.said - 'rivals') #- '{current_offer,expires_at}'
               <> (to_jsonb(v) || jsonb_build_object('at', wire_time(v.at))) #- '{current_offer,expires_at}'""",
    "versions go up in every room": """
        select room_id, seq, name, version, before from (
            select room_id, seq, name, version,
                   lag(version) over (partition by room_id, id, name order by seq) as before
              from told where name in ('offer:changed', 'negotiation:changed', 'transaction:changed')) pushed
         where version <= before""",
    "the last push of a deal is the deal": """
        select t.transaction_id, u.user_id, t.status, t.version, p.said from transactions t
         cross join lateral (values (t.buyer_id), (t.seller_id)) u (user_id)
          left join last_told p on p.id = t.transaction_id and p.room_id = u.user_id and p.noun = 'transaction'
         where p.said is null or (p.said ->> 'status', (p.said ->> 'version')::int) <> (t.status, t.version)""",
    "the last push of a listing is its stock": """
        select l.listing_id, l.status, l.reserved, l.sold, p.said from listings l
         join last_told p on p.id = l.listing_id and p.room_id = l.listing_id and p.noun = 'listing'
         where (p.said ->> 'status', p.said ->> 'reserved', p.said ->> 'sold', p.said ->> 'version')
               <> (l.status, l.reserved::text, l.sold::text, l.version::text)""",
}


async def breaches(dsn: str) -> list[str]:
    """What does not hold, a few rows of each law that is broken; empty where all is well. Nobody moves meanwhile."""
    connection = await asyncpg.connect(dsn)
    found = []
    try:
        await connection.execute("set statement_timeout = 0; set jit = off; set work_mem = '64MB'")
        await connection.execute(_SNAPSHOT)
        for law, query in LAWS.items():
            rows = await connection.fetch(f"select * from ({query}) broken limit {SHOWN}")
            found += [f"{law}: {', '.join(map(str, row.values()))}" for row in rows]
    finally:
        await connection.close()
    return found


async def counted(dsn: str) -> dict[str, int]:
    """How many rows the laws were asked of, so that nobody is proud of an empty database."""
    connection = await asyncpg.connect(dsn)
    try:
        names = ("offers", "negotiations", "transactions", "room_events")
        return {name: await connection.fetchval(f"select count(*) from {name}") for name in names}
    finally:
        await connection.close()
