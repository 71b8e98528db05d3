'use strict';
/*
 * The yardstick: a chat server as a good Node.js developer would write it, doing what Parley does for `message:send`.
 *
 * JWT and membership are checked at connect, a message is one transaction (membership, the room's next seq, the message under a
 * unique client_id), and what has been committed is acknowledged and emitted to the room. It is meant to be fast: native websocket
 * masking (bufferutil), a pool of 20, statements prepared by name, one statement a connect.
 *
 * Environment: PORT, PEER_SECRET, PGHOST/PGPORT/PGUSER/PGDATABASE as libpq has them, and REDIS_URL where there is more than
 * one instance.
 */
const http = require('node:http');
const { createAdapter } = require('@socket.io/redis-adapter');
const jwt = require('jsonwebtoken');
const { Pool } = require('pg');
const { createClient } = require('redis');
const { Server } = require('socket.io');

const POOL = 20;
const BACKLOG = 4096; // as Parley's: a burst of connects waits rather than being refused
const MAX_TEXT = 10_000;
const MAX_CLIENT_ID = 64;
const UNIQUE_VIOLATION = '23505';
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

const FIND_ROOMS = {
  name: 'find_rooms',
  text: `
    select s.session_id, r.room_id, r.last_seq
      from sessions s
      join users u using (user_id)
      left join participants p on p.user_id = u.user_id and p.left_at is null
      left join rooms r using (room_id)
     where s.session_id = $1 and s.user_id = $2 and s.ended_at is null and u.status = 'active'`,
};
const FIND_MEMBER = {
  name: 'find_member',
  text: 'select 1 from participants where room_id = $1 and user_id = $2 and left_at is null',
};
const BUMP_ROOM = {
  name: 'bump_room',
  text: 'update rooms set last_seq = last_seq + 1 where room_id = $1 returning last_seq',
};
const INSERT_MESSAGE = {
  name: 'insert_message',
  text: `
    insert into messages (room_id, seq, sender_id, client_id, text)
    values ($1, $2, $3, $4, $5)
    returning message_id, at`,
};
const FIND_MESSAGE = {
  name: 'find_message',
  text: 'select message_id, room_id, seq, text, at from messages where sender_id = $1 and client_id = $2',
};

/** An error that the client is told of. */
class Refusal extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

function roomName(roomId) {
  return `conversation:${roomId}`;
}

function validate(payload) {
  const { conversation_id: roomId, client_id: clientId, text } = payload ?? {};
  if (typeof roomId !== 'string' || !UUID.test(roomId)) throw new Refusal('invalid', 'conversation_id');
  if (typeof clientId !== 'string' || !clientId || clientId.length > MAX_CLIENT_ID) throw new Refusal('invalid', 'client_id');
  if (typeof text !== 'string' || !text || text.length > MAX_TEXT) throw new Refusal('invalid', 'text');
  return { roomId, clientId, text };
}

/** Store a message in one transaction; `isNew` is false for a repeat of the same client_id. */
async function store(pool, userId, { roomId, clientId, text }) {
  const db = await pool.connect();
  try {
    await db.query('begin');
    const member = await db.query({ ...FIND_MEMBER, values: [roomId, userId] });
    if (member.rowCount === 0) throw new Refusal('not_found', 'There is no such conversation.');
    const bumped = await db.query({ ...BUMP_ROOM, values: [roomId] });
    const seq = Number(bumped.rows[0].last_seq);
    const inserted = await db.query({ ...INSERT_MESSAGE, values: [roomId, seq, userId, clientId, text] });
    await db.query('commit');
    const { message_id, at } = inserted.rows[0];
    return { isNew: true, message_id, seq, at: at.toISOString() };
  } catch (error) {
    await db.query('rollback');
    if (error.code !== UNIQUE_VIOLATION) throw error;
    const { rows } = await db.query({ ...FIND_MESSAGE, values: [userId, clientId] });
    const { message_id, room_id, seq, text: before, at } = rows[0];
    if (room_id !== roomId || before !== text) throw new Refusal('conflict', 'This client_id sent another message.');
    return { isNew: false, message_id, seq: Number(seq), at: at.toISOString() };
  } finally {
    db.release();
  }
}

/** Let a socket in: its token, its session, and the rooms it belongs to. */
async function admit(pool, socket) {
  const claims = jwt.verify(socket.handshake.auth.token, process.env.PEER_SECRET, {
    algorithms: ['HS256'],
    audience: 'parley',
    issuer: 'parley',
  });
  const { rows } = await pool.query({ ...FIND_ROOMS, values: [claims.sid, claims.sub] });
  if (rows.length === 0) throw new Refusal('unauthenticated', 'This session has ended.');
  const rooms = {};
  for (const { room_id, last_seq } of rows) if (room_id) rooms[roomName(room_id)] = Number(last_seq);
  socket.data = { userId: claims.sub, sessionId: claims.sid, scope: claims.scope, rooms };
}

function onSend(io, pool, socket) {
  return async (payload, ack) => {
    try {
      if (socket.data.scope === 'read') throw new Refusal('forbidden', 'This token may only read.');
      const message = validate(payload);
      const { isNew, message_id, seq, at } = await store(pool, socket.data.userId, message);
      ack?.({ ok: true, data: { message_id, seq, at } });
      if (isNew) {
        const room = roomName(message.roomId);
        const created = {
          conversation_id: message.roomId,
          sender_id: socket.data.userId,
          client_id: message.clientId,
          type: 'text',
          text: message.text,
          attachments: [],
          reply_to_id: null,
          offer: null,
          reactions: [],
          version: 1,
          edited_at: null,
          deleted_at: null,
          message_id,
          seq,
          at,
        };
        io.to(room).emit('message:created', created, { room, seq, at });
      }
    } catch (error) {
      if (!(error instanceof Refusal)) console.error(error);
      const known = error instanceof Refusal ? error : new Refusal('internal', 'Something went wrong.');
      ack?.({ ok: false, error: { code: known.code, message: known.message } });
    }
  };
}

async function main() {
  const pool = new Pool({ max: POOL });
  pool.on('error', (error) => console.error(error));
  const server = http.createServer();
  const io = new Server(server, { serveClient: false });
  if (process.env.REDIS_URL) {
    const publisher = createClient({ url: process.env.REDIS_URL });
    const subscriber = publisher.duplicate();
    for (const client of [publisher, subscriber]) client.on('error', (error) => console.error(error));
    await Promise.all([publisher.connect(), subscriber.connect()]);
    io.adapter(createAdapter(publisher, subscriber));
  }
  io.use((socket, next) => {
    admit(pool, socket).then(() => next(), () => next(new Error('unauthenticated')));
  });
  io.on('connection', (socket) => {
    const { userId, sessionId, rooms } = socket.data;
    socket.join([`user:${userId}`, ...Object.keys(rooms)]);
    socket.on('message:send', onSend(io, pool, socket));
    socket.emit('hello', { user_id: userId, session_id: sessionId, server_time: new Date().toISOString(), rooms });
    socket.data.rooms = undefined; // the adapter knows them from here on
  });
  server.listen({ port: Number(process.env.PORT), host: '127.0.0.1', backlog: BACKLOG });
  const stop = () => io.close(() => pool.end().then(() => process.exit(0)));
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
}

main();
