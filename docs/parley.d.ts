// Written by `make docs` from the declarations in handlers/: change those, not this.
//
//     import { io, Socket } from "socket.io-client";
//     import type { Auth, ClientToServerEvents, ServerToClientEvents } from "./parley";
//
//     const auth: Auth = { token };
//     const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io(url, { auth });
//     const answer = await socket.emitWithAck("account:me", {});
//     if (answer.ok) answer.data.username; else answer.error.code;
//
// Behind socket.timeout(ms) socket.io-client's own types know of no answer any more: say whose it is,
// `const answer: Answer<"account:me"> = await socket.timeout(5_000).emitWithAck("account:me", {})`.

/** A UUID. */
export type Id = string;
/** RFC 3339, UTC, milliseconds: 2026-11-20T17:00:00.000Z. */
export type Time = string;

export interface AddParticipant {
  conversation_id: Id;
  user_id: Id;
  role?: ParticipantRole;
}

/** An attachment as its message shows it; `size` in bytes, `sha256` in hex, `url` stable and without a signature. */
export interface Attachment {
  attachment_id: Id;
  name: string;
  content_type: string;
  size: number;
  sha256: string;
  url: string;
}

/** What a client connects with; `rooms` are those to resume, each behind the last seq it has seen. */
export interface Auth {
  token?: string;
  epoch?: string | null;
  rooms?: Record<string, number>;
}

/** Somebody whom one has blocked, or blocks no more. */
export interface BlockChanged {
  user_id: Id;
  blocked: boolean;
}

export interface BlockUser {
  user_id: Id;
}

export interface CompleteAttachment {
  attachment_id: Id;
}

/** All that its viewer sees of a conversation. */
export interface Conversation {
  conversation_id: Id;
  kind: ConversationKind;
  title: string | null;
  listing_id: Id | null;
  thread_id: Id | null;
  participants: Participant[];
  participant_count: number;
  head_seq: number;
  version: number;
  at: Time;
  unread_count: number;
  read_seq: number;
  delivered_seq: number;
  muted_until: Time | null;
  archived: boolean;
  pinned: boolean;
  last_message: Message | null;
}

export type ConversationKind = "private" | "group" | "ai" | "thread" | "live";

/** A page of conversations; `next` is the `before` of the page behind it. */
export interface Conversations {
  conversations: Conversation[];
  next: string | null;
}

export interface CreateAttachment {
  name: string;
  content_type: "application/pdf" | "audio/aac" | "audio/mp4" | "audio/mpeg" | "audio/ogg" | "audio/wav" | "audio/webm" | "image/gif" | "image/jpeg" | "image/png" | "image/webp" | "video/mp4" | "video/quicktime" | "video/webm";
  size: number;
  sha256: string;
  client_id: string;
}

export interface CreateConversation {
  kind: "group" | "private";
  user_ids: Id[];
  client_id: string;
  title?: string | null;
  listing_id?: Id | null;
}

/** An attachment and where its bytes are to be PUT; upload_url is null once it is complete. */
export interface Declared {
  attachment: Attachment;
  upload_url: string | null;
}

export interface DeleteAccount {
  password: string;
}

export interface DeleteMessage {
  message_id: Id;
}

/** It is done; there is nothing to say of it. */
export type Done = Record<string, never>;

export interface EditMessage {
  message_id: Id;
  text: string;
  version: number;
}

export interface FileReport {
  subject: SubjectInput;
  reason: string;
  client_id: string;
  text?: string | null;
}

/** A report as administrators see it. */
export interface FiledReport {
  report_id: Id;
  subject: Subject;
  reason: string;
  text: string | null;
  status: ReportStatus;
  resolution: string | null;
  at: Time;
  resolved_at: Time | null;
  reporter_id: Id;
  resolved_by: Id | null;
}

export interface Forgot {
  email: string;
}

/** A page of messages, the latest first; `next` is the `before` of the page behind it. */
export interface FoundMessages {
  messages: Message[];
  next: string | null;
}

export interface GetAttachment {
  attachment_id: Id;
}

export interface GetConversation {
  conversation_id: Id;
}

export interface GetUser {
  user_id: Id;
}

/** The first push of every connection. In each of `rooms`, what follows is the replay asked for, then head + 1. */
export interface Hello {
  protocol: number;
  user_id: Id;
  session_id: Id;
  server_time: Time;
  instance: string;
  epoch: Id;
  rooms: Record<string, number>;
  reset: string[];
  truncated: boolean;
}

/** A page of messages, ascending by seq; `more` says whether there are others beyond it in the direction read. */
export interface History {
  messages: Message[];
  more: boolean;
}

export interface JoinRoom {
  room: string;
  after?: number | null;
}

/** What follows is the replay behind `after`, then the events from head_seq + 1. On `reset`, load the room afresh. */
export interface Joined {
  room: string;
  head_seq: number;
  reset: boolean;
}

export interface JudgeUser {
  user_id: Id;
  reason: string;
}

export interface LeaveConversation {
  conversation_id: Id;
}

export interface LeaveRoom {
  room: string;
}

/** Where an attachment can be downloaded, and until when; `url` is relative to the server's address. */
export interface Link {
  url: string;
  expires_at: Time;
}

export interface ListConversations {
  archived?: boolean;
  before?: string | null;
  limit?: number;
}

export interface ListReports {
  status?: ReportStatus | null;
  before?: Id | null;
  limit?: number;
}

/** A report with what it is about as that is now, under its kind; null where that is gone. */
export interface ListedReport {
  report_id: Id;
  subject: Subject;
  reason: string;
  text: string | null;
  status: ReportStatus;
  resolution: string | null;
  at: Time;
  resolved_at: Time | null;
  reporter_id: Id;
  resolved_by: Id | null;
  message: Message | null;
  conversation: ReportedConversation | null;
  user: PublicUser | null;
}

export interface LogIn {
  login: string;
  password: string;
  device?: string | null;
}

export interface LogOut {
  all?: boolean;
}

export interface Mark {
  conversation_id: Id;
  /** up to and with which event of the room */
  seq: number;
}

/** One's own marks as they are now. */
export interface Marks {
  read_seq: number;
  delivered_seq: number;
}

/** A message; `seq` is that of its `message:created` in the room's log. */
export interface Message {
  conversation_id: Id;
  sender_id: Id;
  client_id: string;
  type: MessageType;
  text: string | null;
  attachments: Attachment[];
  reply_to_id: Id | null;
  offer: unknown;
  reactions: Reaction[];
  version: number;
  edited_at: Time | null;
  deleted_at: Time | null;
  message_id: Id;
  seq: number;
  at: Time;
}

export type MessageType = "text" | "image" | "offer" | "system" | "ai";

/** One's own fields of a conversation. `head_seq` is there when the conversation has come back from the archive: the socket has been joined to its room behind that seq. */
export interface Mine {
  conversation_id: Id;
  read_seq: number;
  delivered_seq: number;
  unread_count: number;
  muted_until: Time | null;
  archived: boolean;
  pinned: boolean;
  head_seq?: number | null;
}

/** No fields. */
export type Nothing = Record<string, never>;

/** With the viewer's own fields, for their own room. No last_message: logged text could not be erased from here. */
export interface OwnConversation {
  conversation_id: Id;
  kind: ConversationKind;
  title: string | null;
  listing_id: Id | null;
  thread_id: Id | null;
  participants: Participant[];
  participant_count: number;
  head_seq: number;
  version: number;
  at: Time;
  unread_count: number;
  read_seq: number;
  delivered_seq: number;
  muted_until: Time | null;
  archived: boolean;
  pinned: boolean;
}

/** One person's part; history and replay begin behind `joined_seq`. In a private conversation of which one has blocked the other, the other's marks are 0. */
export interface Participant {
  user_id: Id;
  role: ParticipantRole;
  joined_at: Time;
  joined_seq: number;
  read_seq: number;
  delivered_seq: number;
}

/** Somebody was let in; in their own room, with the conversation they find (and whose head_seq they begin at). */
export interface ParticipantAdded {
  conversation_id: Id;
  participant: Participant;
  conversation?: OwnConversation | null;
}

/** Somebody was shown out by somebody. */
export interface ParticipantRemoved {
  conversation_id: Id;
  user_id: Id;
  by: Id;
}

export type ParticipantRole = "owner" | "admin" | "member";

/** Whether somebody is there on any device; if not, since when, where that is known. */
export interface Presence {
  user_id: Id;
  state: PresenceState;
  last_seen_at: Time | null;
}

export type PresenceState = "online" | "away" | "offline";

export interface PromoteParticipant {
  conversation_id: Id;
  user_id: Id;
  role?: ParticipantRole;
}

/** An account as others see it. */
export interface PublicUser {
  user_id: Id;
  username: string;
  full_name: string | null;
  full_name_ar: string | null;
  profile_picture_url: string | null;
  roles: Role[];
  verified: boolean;
  seller_rating: number | null;
  total_sales: number;
}

export interface React {
  message_id: Id;
  emoji: string;
  on: boolean;
}

/** How many reacted with an emoji, and the first twenty of them. */
export interface Reaction {
  emoji: string;
  count: number;
  user_ids: Id[];
}

export interface ReadHistory {
  conversation_id: Id;
  before_seq?: number | null;
  after_seq?: number | null;
  limit?: number;
}

export interface ReadRevisions {
  message_id: Id;
}

/** Somebody's marks in a conversation. */
export interface Receipt {
  conversation_id: Id;
  user_id: Id;
  read_seq: number;
  delivered_seq: number;
}

export interface Refresh {
  refresh_token: string;
}

export interface Register {
  username: string;
  email: string;
  password: string;
  full_name?: string | null;
  full_name_ar?: string | null;
  phone?: string | null;
  whatsapp_number?: string | null;
  locale?: string;
}

export interface RemoveParticipant {
  conversation_id: Id;
  user_id: Id;
}

export interface RenewSocket {
  token: string;
}

/** When the socket ends now. */
export interface Renewed {
  expires_at: Time;
}

/** A report as its reporter sees it. */
export interface Report {
  report_id: Id;
  subject: Subject;
  reason: string;
  text: string | null;
  status: ReportStatus;
  resolution: string | null;
  at: Time;
  resolved_at: Time | null;
}

export type ReportStatus = "open" | "resolved" | "dismissed";

/** What administrators see of a conversation that has been reported. */
export interface ReportedConversation {
  conversation_id: Id;
  kind: ConversationKind;
  title: string | null;
}

/** A page of reports; `next` is the `before` of the page behind it. */
export interface Reports {
  reports: ListedReport[];
  next: Id | null;
}

export interface Reset {
  reset_token: string;
  password: string;
}

export interface ResolveReport {
  report_id: Id;
  resolution: string;
  dismiss?: boolean;
}

/** What a message said before an edit, and since when. */
export interface Revision {
  version: number;
  text: string;
  at: Time;
}

/** What the message said before, the oldest first; the last one is the message itself. */
export interface Revisions {
  revisions: Revision[];
}

export interface RevokeSession {
  session_id: Id;
}

export type Role = "buyer" | "seller" | "mentor" | "admin";

export interface SearchMessages {
  query: string;
  conversation_id?: Id | null;
  before?: string | null;
  limit?: number;
}

export interface SearchUsers {
  query: string;
  limit?: number;
}

export interface SendMessage {
  conversation_id: Id;
  client_id: string;
  text?: string | null;
  attachment_ids?: Id[];
  reply_to_id?: Id | null;
}

/** Where a message stands in its conversation. */
export interface Sent {
  message_id: Id;
  seq: number;
  at: Time;
}

/** The instance goes; come back after this long, each client at a moment of its own. */
export interface ServerDraining {
  reconnect_in_ms: number;
}

/** A device's session as its owner sees it; `current` is the one that asks. */
export interface Session {
  session_id: Id;
  device: string | null;
  address: string | null;
  started_at: Time;
  last_seen_at: Time;
  current: boolean;
}

/** The socket ends at `expires_at`, unless account:renew brings a fresh token before. */
export interface SessionExpiring {
  session_id: Id;
  expires_at: Time;
}

/** A session that has ended, and why. */
export interface SessionRevoked {
  session_id: Id;
  reason: string;
}

/** The devices that are signed in: the caller's own first, then the last seen. */
export interface Sessions {
  sessions: Session[];
}

export interface SetPresence {
  state: "away" | "online";
}

export interface SetTyping {
  conversation_id: Id;
  state: TypingState;
}

/** What everybody in a conversation sees alike: all that a shared room is told of it. */
export interface SharedConversation {
  conversation_id: Id;
  kind: ConversationKind;
  title: string | null;
  listing_id: Id | null;
  thread_id: Id | null;
  participants: Participant[];
  participant_count: number;
  head_seq: number;
  version: number;
  at: Time;
}

/** A session's tokens; `expires_at` is the access token's end. */
export interface SignedIn {
  user: User;
  access_token: string;
  refresh_token: string;
  expires_at: Time;
}

/** What a report is about. */
export interface Subject {
  kind: SubjectKind;
  id: Id;
}

/** What a report is about. */
export interface SubjectInput {
  kind: SubjectKind;
  id: Id;
}

export type SubjectKind = "user" | "message" | "conversation";

export interface SyncRoom {
  room: string;
  after: number;
  limit?: number;
}

/** A page of a room's events behind `after`. */
export interface Synced {
  events: SyncedEvent[];
  head_seq: number;
  more: boolean;
  reset: boolean;
}

/** An event as it was pushed. */
export interface SyncedEvent {
  name: string;
  payload: unknown;
  seq: number;
  at: Time;
}

/** All who type in a conversation now. */
export interface TypingChanged {
  conversation_id: Id;
  typing: Typist[];
}

export type TypingState = "typing" | "recording" | "stopped";

/** Somebody who types, or records. */
export interface Typist {
  user_id: Id;
  state: TypingState;
}

export interface UpdateAccount {
  username?: string;
  email?: string;
  full_name?: string | null;
  full_name_ar?: string | null;
  phone?: string | null;
  whatsapp_number?: string | null;
  profile_picture_url?: string | null;
  locale?: string;
  preferences?: Record<string, unknown>;
  notification_channels?: string[];
  roles?: ("buyer" | "mentor" | "seller")[];
}

export interface UpdateConversation {
  conversation_id: Id;
  version?: number | null;
  title?: string | null;
  archived?: boolean;
  muted_until?: Time | null;
  pinned?: boolean;
}

/** An account as its owner sees it. */
export interface User {
  user_id: Id;
  username: string;
  email: string;
  full_name: string | null;
  full_name_ar: string | null;
  phone: string | null;
  whatsapp_number: string | null;
  profile_picture_url: string | null;
  locale: string;
  roles: Role[];
  status: UserStatus;
  verified: boolean;
  seller_rating: number | null;
  total_sales: number;
  preferences: unknown;
  notification_channels: string[];
  at: Time;
}

/** Only the active may sign in. */
export type UserStatus = "active" | "inactive" | "suspended" | "deleted";

/** People as others see them. */
export interface Users {
  users: PublicUser[];
}

export interface Watch {
  user_ids: Id[];
}

/** What these people are now; those with whom one shares no conversation are left out. */
export interface Watched {
  presences: Presence[];
}

/** The payload does not decode or breaks a rule of form; `fields` maps a path to what is wrong there. */
export interface InvalidError {
  code: "invalid";
  message: string;
  /** What is wrong, by the path of the field; `payload` where it is all of it. */
  fields: Record<string, string>;
}

/** No token, an expired or revoked one, or a wrong password. */
export interface UnauthenticatedError {
  code: "unauthenticated";
  message: string;
}

/** The caller can see the object, but may not do this to it. */
export interface ForbiddenError {
  code: "forbidden";
  message: string;
}

/** The object does not exist, or the caller may not see it: one answer for both, so that ids can't be probed. */
export interface NotFoundError {
  code: "not_found";
  message: string;
}

/** The state moved. `reason` says how; `current`, where given, is the object as it is now. */
export interface ConflictError {
  code: "conflict";
  message: string;
  reason: "key_reuse" | "version" | "not_pending" | "expired" | "sold" | "listing_changed" | "not_your_turn" | "rounds_spent" | "taken" | "blocked";
  /** The object as it is now, where there is one that the caller may see. */
  current?: unknown;
}

/** Too long or too many; `limit` is the most that is allowed. */
export interface TooLargeError {
  code: "too_large";
  message: string;
  /** The most that is allowed. */
  limit: number;
}

/** Too many calls; `retry_after_ms` is when the next one fits. */
export interface RateLimitedError {
  code: "rate_limited";
  message: string;
  /** When the next call fits. */
  retry_after_ms: number;
}

/** No such command, or not on this transport. */
export interface UnknownCommandError {
  code: "unknown_command";
  message: string;
}

/** A dependency is down or busy: nothing was done, or the outcome is unknown. */
export interface UnavailableError {
  code: "unavailable";
  message: string;
}

/** A bug; `error_id` finds it in the logs. */
export interface InternalError {
  code: "internal";
  message: string;
  /** Finds it in the server's logs. */
  error_id: string;
}

/** The errors by their code. */
export interface Errors {
  invalid: InvalidError;
  unauthenticated: UnauthenticatedError;
  forbidden: ForbiddenError;
  not_found: NotFoundError;
  conflict: ConflictError;
  too_large: TooLargeError;
  rate_limited: RateLimitedError;
  unknown_command: UnknownCommandError;
  unavailable: UnavailableError;
  internal: InternalError;
}

/** The commands: what each takes, what it answers, where it may be called. */
export interface Commands {
  /** Open an account and sign in to it. */
  "account:register": {
    payload: Register;
    data: SignedIn;
    error: "invalid" | "unauthenticated" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "http";
  };
  /** Sign in by username or e-mail address. Unknown people and wrong passwords get the same answer, as late. */
  "account:login": {
    payload: LogIn;
    data: SignedIn;
    error: "invalid" | "unauthenticated" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "http";
  };
  /** Renew the tokens. The refresh token is spent; using it again ends the session, for somebody has a copy. */
  "account:refresh": {
    payload: Refresh;
    data: SignedIn;
    error: "invalid" | "unauthenticated" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "http";
  };
  /** Read one's own account. */
  "account:me": {
    payload: Nothing;
    data: User;
    error: "invalid" | "unauthenticated" | "forbidden" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Change one's account: null clears a field, absence keeps it. Nobody becomes an administrator by it. */
  "account:update": {
    payload: UpdateAccount;
    data: User;
    error: "invalid" | "unauthenticated" | "forbidden" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Sign this device out, or with `all` every device; a token that makes no account changes ends its own alone. */
  "account:logout": {
    payload: LogOut;
    data: Done;
    error: "invalid" | "unauthenticated" | "forbidden" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Keep the socket beyond its token's end by a fresh token of the same session, with the scope of that one. */
  "account:renew": {
    payload: RenewSocket;
    data: Renewed;
    error: "invalid" | "unauthenticated" | "forbidden" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket";
  };
  /** Delete one's account: everything personal goes, every device is signed out, and nobody comes back to it. */
  "account:delete": {
    payload: DeleteAccount;
    data: Done;
    error: "invalid" | "unauthenticated" | "forbidden" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Have a token mailed that resets one's password. The answer is the same, and as quick, for any address. */
  "account:forgot": {
    payload: Forgot;
    data: Done;
    error: "invalid" | "unauthenticated" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "http";
  };
  /** Choose another password by a token that was mailed. Every device is signed out; the token is spent. */
  "account:reset": {
    payload: Reset;
    data: Done;
    error: "invalid" | "unauthenticated" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "http";
  };
  /** Declare a file. Its bytes go to upload_url by PUT; then attachment:complete, then message:send. */
  "attachment:create": {
    payload: CreateAttachment;
    data: Declared;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Say that the upload is whole. What differs from its declaration is `invalid` and thrown away: PUT it again. */
  "attachment:complete": {
    payload: CompleteAttachment;
    data: Attachment;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Sign a link to download an attachment, valid for some minutes; url is relative to the server's address. */
  "attachment:get": {
    payload: GetAttachment;
    data: Link;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Open a conversation. A private one is unique for the pair and listing: where it exists, it is the answer. */
  "conversation:create": {
    payload: CreateConversation;
    data: Conversation;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** List one's conversations, the latest activity first. */
  "conversation:list": {
    payload: ListConversations;
    data: Conversations;
    error: "invalid" | "unauthenticated" | "forbidden" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Look at a conversation with all of its people. */
  "conversation:get": {
    payload: GetConversation;
    data: Conversation;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Change a group's title, for all; or what is one's own: archived, muted until, pinned. A title needs `version`. */
  "conversation:update": {
    payload: UpdateConversation;
    data: Conversation;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Leave a group. An owner hands over to the longest-standing admin, or else member. */
  "conversation:leave": {
    payload: LeaveConversation;
    data: Done;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Send a message. The same client_id again answers with the same message, for good. */
  "message:send": {
    payload: SendMessage;
    data: Sent;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Read the messages before or after a seq, or the latest; never those from before one's joining. */
  "message:history": {
    payload: ReadHistory;
    data: History;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Let one's own message say something else; `version` is the one that was seen. What it said before is kept. */
  "message:edit": {
    payload: EditMessage;
    data: Message;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Blank a message for all, wherever its text is kept; its seq stays. Its sender may, and in a group its admins. */
  "message:delete": {
    payload: DeleteMessage;
    data: Message;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Read what an edited message said before. */
  "message:revisions": {
    payload: ReadRevisions;
    data: Revisions;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** React to a message with an emoji, or take it back. */
  "message:react": {
    payload: React;
    data: Message;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Find messages by words: all of them, `"a phrase"`, `one or another`, `-without`; in one conversation, or all. */
  "message:search": {
    payload: SearchMessages;
    data: FoundMessages;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Let somebody into a group; they see it from here on. Owners let in anybody, admins members. */
  "participant:add": {
    payload: AddParticipant;
    data: Conversation;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Show somebody out of a group: nothing they send is stored and nothing reaches them after it. */
  "participant:remove": {
    payload: RemoveParticipant;
    data: Conversation;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Give somebody in a group another role: its owner may, and is an admin once it is given away. Admins step down. */
  "participant:promote": {
    payload: PromoteParticipant;
    data: Conversation;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Say whether one looks at this device. Online on one device is online; a new socket is. */
  "presence:set": {
    payload: SetPresence;
    data: Done;
    error: "invalid" | "unauthenticated" | "forbidden" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket";
  };
  /** Be told on this socket when people come and go with whom one shares a conversation. */
  "presence:watch": {
    payload: Watch;
    data: Watched;
    error: "invalid" | "unauthenticated" | "forbidden" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket";
  };
  /** Be told of these people no more. */
  "presence:unwatch": {
    payload: Watch;
    data: Done;
    error: "invalid" | "unauthenticated" | "forbidden" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket";
  };
  /** Say that one has read up to `seq`. A mark never moves back, and never beyond the head. */
  "receipt:read": {
    payload: Mark;
    data: Marks;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Say that one's device has received up to `seq`. */
  "receipt:delivered": {
    payload: Mark;
    data: Marks;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Report a person, or a message or conversation that one sees, to the administrators. */
  "report:file": {
    payload: FileReport;
    data: Report;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** List what has been reported, the newest first, with what it is about as that is now. */
  "report:list": {
    payload: ListReports;
    data: Reports;
    error: "invalid" | "unauthenticated" | "forbidden" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Say what has been done about a report, or why nothing was. It is said once: another word is a conflict. */
  "report:resolve": {
    payload: ResolveReport;
    data: FiledReport;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Stand in a room, and be served what came behind `after` first. */
  "room:join": {
    payload: JoinRoom;
    data: Joined;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket";
  };
  /** Stand in a room no more; a room one does not stand in is left already. One's own room can't be left. */
  "room:leave": {
    payload: LeaveRoom;
    data: Done;
    error: "invalid" | "unauthenticated" | "forbidden" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket";
  };
  /** Read the events behind `after`, to fill a hole. `reset` where some of the page are swept, or `after` is beyond the head. */
  "room:sync": {
    payload: SyncRoom;
    data: Synced;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** List the devices that are signed in to one's account. */
  "session:list": {
    payload: Nothing;
    data: Sessions;
    error: "invalid" | "unauthenticated" | "forbidden" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Sign one of one's devices out: its tokens and sockets end. One that has ended already is left as it is. */
  "session:revoke": {
    payload: RevokeSession;
    data: Done;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Say that one types, records or has stopped; again every few seconds while it goes on. */
  "typing:set": {
    payload: SetTyping;
    data: Done;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket";
  };
  /** Look at somebody's public profile. */
  "user:get": {
    payload: GetUser;
    data: PublicUser;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Find active people: first those whose username begins with the query, then by their names, the closest first. */
  "user:search": {
    payload: SearchUsers;
    data: Users;
    error: "invalid" | "unauthenticated" | "forbidden" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Keep somebody out: their sessions and sockets end, and they can't sign in. */
  "user:suspend": {
    payload: JudgeUser;
    data: User;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Let somebody who was suspended sign in again. */
  "user:restore": {
    payload: JudgeUser;
    data: User;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Block somebody; one who is blocked already stays so. */
  "user:block": {
    payload: BlockUser;
    data: Done;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Block somebody no more; one who is not blocked stays so. */
  "user:unblock": {
    payload: BlockUser;
    data: Done;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** List the people one has blocked, the latest first. */
  "user:blocks": {
    payload: Nothing;
    data: Users;
    error: "invalid" | "unauthenticated" | "forbidden" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
}

/** The second argument of a durable push: order by seq, call room:sync on a hole. */
export interface DurableMeta { room: string; seq: number; at: Time }
/** The second argument of an ephemeral push, which no log keeps. */
export interface EphemeralMeta { room: string; at: Time }

/** The pushes, each with its arguments. */
export interface Pushes {
  /** The first of every connection, to that socket alone; without a second argument. */
  "hello": [payload: Hello];
  /** One has blocked somebody on another device, or does so no more. Room: user. */
  "block:changed": [payload: BlockChanged, meta: DurableMeta];
  /** One is in a new conversation; the server has joined one's sockets to it. Room: user. */
  "conversation:created": [payload: OwnConversation, meta: DurableMeta];
  /** What all of its people see has changed. Room: conversation. */
  "conversation:updated": [payload: SharedConversation, meta: DurableMeta];
  /** One's own fields of a conversation have changed, on whatever device; receipts included. Room: user. */
  "conversation:mine": [payload: Mine, meta: DurableMeta];
  /** A message says something else. Room: conversation, thread. */
  "message:edited": [payload: Message, meta: DurableMeta];
  /** A message is blank now, and so is its copy in the log. Room: conversation, thread. */
  "message:deleted": [payload: Message, meta: DurableMeta];
  /** A message was sent; everybody in the room gets it, its sender too. Room: conversation, thread. */
  "message:created": [payload: Message, meta: DurableMeta];
  /** Somebody reacted to a message, or took that back. Room: conversation, thread. */
  "message:reacted": [payload: Message, meta: DurableMeta];
  /** Somebody takes part in the conversation now. Room: conversation, user. */
  "participant:added": [payload: ParticipantAdded, meta: DurableMeta];
  /** Somebody takes part no more, and hears no more. Room: conversation, user. */
  "participant:removed": [payload: ParticipantRemoved, meta: DurableMeta];
  /** Somebody who takes part has another role. Room: conversation. */
  "participant:changed": [payload: ParticipantAdded, meta: DurableMeta];
  /** Somebody whom one watches comes, looks away or goes. Room: user. */
  "presence:changed": [payload: Presence, meta: EphemeralMeta];
  /** Somebody who takes part has changed what others see of them. Room: conversation. */
  "profile:changed": [payload: PublicUser, meta: EphemeralMeta];
  /** Somebody has read, or received, up to there. Room: conversation, thread. */
  "receipt:changed": [payload: Receipt, meta: EphemeralMeta];
  /** This instance stops soon. Room: user. */
  "server:draining": [payload: ServerDraining, meta: EphemeralMeta];
  /** This socket's token ends within a minute; to that socket alone. Room: user. */
  "session:expiring": [payload: SessionExpiring, meta: EphemeralMeta];
  /** A session has ended; its sockets are closed. Room: user. */
  "session:revoked": [payload: SessionRevoked, meta: DurableMeta];
  /** The list of who types has changed. Room: conversation, thread. */
  "typing:changed": [payload: TypingChanged, meta: EphemeralMeta];
  /** One's account has changed. Room: user. */
  "user:updated": [payload: User, meta: DurableMeta];
}

/** The answer of a command: its result, or one of the errors that it may give. */
export type Answer<Name extends keyof Commands> =
  | { ok: true; data: Commands[Name]["data"] }
  | { ok: false; error: Errors[Commands[Name]["error"]] };

/** The commands that a socket may call. */
export type SocketCommand = {
  [Name in keyof Commands]: "socket" extends Commands[Name]["on"] ? Name : never;
}[keyof Commands];

/** The commands that are POST /api/<noun>/<verb> too, or alone. */
export type HttpCommand = {
  [Name in keyof Commands]: "http" extends Commands[Name]["on"] ? Name : never;
}[keyof Commands];

/** What a client emits, for socket.io-client's Socket. */
export type ClientToServerEvents = {
  [Name in SocketCommand]: (payload: Commands[Name]["payload"], ack: (answer: Answer<Name>) => void) => void;
};

/** What a client hears, for socket.io-client's Socket. */
export type ServerToClientEvents = {
  [Name in keyof Pushes]: (...told: Pushes[Name]) => void;
};

/** What `connect_error` has beside its message, for `error.data`. */
export type ConnectError = { code: keyof Errors };
