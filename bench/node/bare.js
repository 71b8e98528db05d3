'use strict';
/*
 * socket.io alone, the yardstick of `server/wire` alone: join, send, broadcast, ack; nothing is judged or stored.
 *
 * A token is the names of one's conversations, with commas between them. A room's messages are counted by the instance
 * on which they are sent, from 1 on, and anew when all of its people there have left.
 *
 * Environment: PORT, and REDIS_URL where there is more than one instance.
 */
const http = require('node:http');
const { createAdapter } = require('@socket.io/redis-adapter');
const { createClient } = require('redis');
const { Server } = require('socket.io');

const BACKLOG = 4096;

async function main() {
  const server = http.createServer();
  const io = new Server(server, { serveClient: false });
  if (process.env.REDIS_URL) {
    const publisher = createClient({ url: process.env.REDIS_URL });
    const subscriber = publisher.duplicate();
    for (const client of [publisher, subscriber]) client.on('error', (error) => console.error(error));
    await Promise.all([publisher.connect(), subscriber.connect()]);
    io.adapter(createAdapter(publisher, subscriber));
  }
  const seqs = new Map();
  io.of('/').adapter.on('delete-room', (room) => seqs.delete(room));
  io.on('connection', (socket) => {
    const rooms = socket.handshake.auth.token.split(',').map((id) => `conversation:${id}`);
    socket.join(rooms);
    socket.on('message:send', (message, ack) => {
      const room = `conversation:${message.conversation_id}`;
      const seq = (seqs.get(room) ?? 0) + 1;
      seqs.set(room, seq);
      ack({ ok: true, data: { seq } });
      io.to(room).emit('message:created', { client_id: message.client_id, text: message.text }, { room, seq });
    });
    socket.emit('hello', { rooms: Object.fromEntries(rooms.map((room) => [room, seqs.get(room) ?? 0])) });
  });
  server.listen({ port: Number(process.env.PORT), host: '127.0.0.1', backlog: BACKLOG });
  const stop = () => io.close(() => process.exit(0));
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
}

main();
