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

export interface AcceptAnswer {
  faq_id: Id;
}

export interface ActOnMatch {
  match_id: Id;
  action: MatchAction;
  metadata?: Record<string, unknown>;
}

/** A match as it is now, and the mutual match where both want it. */
export interface ActedOn {
  match: Match;
  mutual_match?: MutualMatch | null;
}

export interface AddParticipant {
  conversation_id: Id;
  user_id: Id;
  role?: ParticipantRole;
}

export interface AskQuestion {
  listing_id: Id;
  text: string;
  client_id: string;
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

/** What is answered to buyers of a listing: accepted from a price on, declined under one, countered between. */
export interface AutoRule {
  listing_id: Id;
  accept_at: Money | null;
  decline_below: Money | null;
  counter_step: Money | null;
  max_rounds: number | null;
  enabled: boolean;
  version: number;
  at: Time;
}

/** Somebody whom one has blocked, or blocks no more. */
export interface BlockChanged {
  user_id: Id;
  blocked: boolean;
}

export interface BlockUser {
  user_id: Id;
}

/** A deal at the asked price. */
export interface Bought {
  transaction: Transaction;
}

export interface BuyListing {
  listing_id: Id;
  version: number;
  client_id: string;
  quantity?: number;
}

/** Whether people alone made and answered an offer, or an auto-rule in the seller's name. */
export type By = "person" | "rule";

export type Category = "trading_cards" | "mens_fashion" | "sneakers" | "sports_cards" | "collectibles" | "electronics" | "home_decor" | "beauty" | "kids_baby" | "furniture" | "books" | "other";

export interface CloseListing {
  listing_id: Id;
}

export type CloseReason = "countered" | "declined" | "auto_declined" | "withdrawn" | "superseded" | "listing_sold" | "listing_closed" | "timeout" | "payment_lapsed" | "blocked";

export interface CompleteAttachment {
  attachment_id: Id;
}

export type Condition = "new" | "like_new" | "good" | "fair";

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

export interface CounterOffer {
  offer_id: Id;
  version: number;
  price: MoneyInput;
  client_id: string;
  quantity?: number | null;
  message?: string | null;
  /** seconds that it stands */
  expires_in_s?: number;
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

export interface CreateListing {
  kind: ListingKind;
  title: string;
  description: string;
  price: MoneyInput;
  category: Category;
  client_id: string;
  thread_id?: Id | null;
  condition?: Condition | null;
  quantity?: number;
  feed?: Feed;
  images?: string[];
  video?: string | null;
  thumbnail?: string | null;
  location?: LocationInput | null;
  expires_at?: Time | null;
}

export interface CreateReview {
  transaction_id: Id;
  rating: number;
  client_id: string;
  text?: string | null;
}

export interface CreateThread {
  title: string;
  category: Category;
  client_id: string;
  description?: string | null;
}

/** A deal on paper. `offers` are all of its negotiation, none where it was bought at the asked price. */
export interface DealReceipt {
  transaction_id: Id;
  terms: Terms;
  parties: Parties;
  times: Times;
  offers: Offer[];
  history_sha256: string;
}

/** An attachment and where its bytes are to be PUT; upload_url is null once it is complete. */
export interface Declared {
  attachment: Attachment;
  upload_url: string | null;
}

export interface DeclineAll {
  listing_id: Id;
  below?: MoneyInput | null;
}

/** How many offers were declined; ask again where it is a thousand. */
export interface DeclinedAll {
  declined: number;
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

export interface ExtendListing {
  listing_id: Id;
  expires_at?: Time | null;
}

/** A question, an answer of the listing's owner, or a reply to any of them; no text where its author is erased. */
export interface Faq {
  faq_id: Id;
  listing_id: Id;
  user_id: Id;
  parent_id: Id | null;
  type: FaqType;
  text: string | null;
  is_accepted: boolean;
  at: Time;
}

export type FaqType = "question" | "answer" | "reply";

/** A page of questions, answers and replies; `next` is the `before` of the page behind it. */
export interface Faqs {
  faqs: Faq[];
  next: string | null;
}

export interface FavorThread {
  thread_id: Id;
  on?: boolean;
}

export type Feed = "discover" | "community";

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

/** A page of listings, in the order asked for; `next` is the `before` of the page behind it. */
export interface FoundListings {
  listings: Listing[];
  next: string | null;
}

/** A page of messages, the latest first; `next` is the `before` of the page behind it. */
export interface FoundMessages {
  messages: Message[];
  next: string | null;
}

export interface GetAttachment {
  attachment_id: Id;
}

export interface GetAutoRule {
  listing_id: Id;
}

export interface GetConversation {
  conversation_id: Id;
}

export interface GetListing {
  listing_id: Id;
}

export interface GetNegotiation {
  negotiation_id: Id;
}

export interface GetThread {
  thread_id: Id;
}

export interface GetTransaction {
  transaction_id: Id;
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

export interface LikeListing {
  listing_id: Id;
  on: boolean;
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

export interface ListFaqs {
  listing_id: Id;
  before?: string | null;
  limit?: number;
}

export interface ListMatches {
  listing_id?: Id | null;
  status?: MatchStatus | null;
  before?: Id | null;
  limit?: number;
}

export interface ListMutual {
  before?: Id | null;
  limit?: number;
}

export interface ListNegotiations {
  role?: "buyer" | "seller" | null;
  status?: NegotiationStatus | null;
  listing_id?: Id | null;
  before?: Id | null;
  limit?: number;
}

export interface ListReports {
  status?: ReportStatus | null;
  before?: Id | null;
  limit?: number;
}

export interface ListReviews {
  user_id: Id;
  before?: Id | null;
  limit?: number;
}

export interface ListThreads {
  category?: Category | null;
  joined?: boolean | null;
  before?: string | null;
  limit?: number;
}

export interface ListTransactions {
  role?: "buyer" | "seller" | null;
  status?: TransactionStatus | null;
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
  listing: SharedListing | null;
  faq: Faq | null;
}

/** All that its viewer sees of a listing; `distance_m` where a place was searched from. */
export interface Listing {
  listing_id: Id;
  user_id: Id;
  thread_id: Id | null;
  kind: ListingKind;
  title: string;
  description: string;
  price: Money;
  category: Category;
  condition: Condition | null;
  quantity: number;
  reserved: number;
  sold: number;
  feed: Feed;
  images: string[];
  video: string | null;
  thumbnail: string | null;
  location: Location | null;
  status: ListingStatus;
  views: number;
  likes: number;
  version: number;
  expires_at: Time;
  at: Time;
  liked: boolean;
  distance_m: number | null;
}

export type ListingKind = "for_sale" | "wtb";

export type ListingStatus = "active" | "reserved" | "sold" | "expired" | "closed";

/** A place, in degrees (WGS 84). */
export interface Location {
  lat: number;
  lng: number;
}

/** A place, in degrees (WGS 84). */
export interface LocationInput {
  lat: number;
  lng: number;
}

export interface LogIn {
  login: string;
  password: string;
  device?: string | null;
}

export interface LogOut {
  all?: boolean;
}

export interface MakeOffer {
  listing_id: Id;
  price: MoneyInput;
  listing_version: number;
  client_id: string;
  buyer_id?: Id | null;
  quantity?: number;
  message?: string | null;
  /** seconds that it stands */
  expires_in_s?: number;
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

/** Something wanted and something for sale that may belong together, as one of the two owners sees it. `source_listing` is the one that was new, or had changed, when it was found. `score` is the sum of the reasons' points; under 40 it is a match no more, without `quality`, and comes back if it rises. `status` is the viewer's own. */
export interface Match {
  match_id: Id;
  source_listing: SharedListing;
  matched_listing: SharedListing;
  score: number;
  quality: MatchQuality | null;
  reasons: Reason[];
  status: MatchStatus;
  at: Time;
}

export type MatchAction = "viewed" | "interested" | "contacted" | "dismissed" | "reported";

/** 80 points and more, 60 and more, 40 and more; with fewer it is no match, and has none. */
export type MatchQuality = "excellent" | "good" | "possible";

/** What a match stands on. */
export type MatchReason = "text" | "price" | "category" | "near" | "condition";

/** What a match is to one of its owners. */
export type MatchStatus = "new" | "viewed" | "interested" | "contacted" | "dismissed" | "mutual" | "deal_made";

/** A page of matches; `next` is the `before` of the page behind it. */
export interface Matches {
  matches: Match[];
  next: Id | null;
}

/** Somebody who has come, or gone. */
export interface MemberMoved {
  thread_id: Id;
  user_id: Id;
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

/** A page of messages, ascending by seq; `more` says whether there are others beyond it in the direction read. */
export interface MessagesHistory {
  messages: Message[];
  more: boolean;
}

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

/** An amount in its currency's minor units. */
export interface Money {
  /** in minor units */
  amount: number;
  /** ISO 4217 */
  currency: string;
}

/** An amount in its currency's minor units. */
export interface MoneyInput {
  /** in minor units */
  amount: number;
  /** ISO 4217 */
  currency: string;
}

export interface MoveOffer {
  offer_id: Id;
  version: number;
}

export interface MoveTransaction {
  transaction_id: Id;
  version: number;
}

/** Two who want to deal with each other: what is wanted is the buyer's listing, what is for sale the seller's. */
export interface MutualMatch {
  mutual_match_id: Id;
  buyer_listing_id: Id;
  seller_listing_id: Id;
  buyer_user_id: Id;
  seller_user_id: Id;
  conversation_id: Id;
  negotiation_id: Id | null;
  is_mutual: boolean;
  status: MutualStatus;
  at: Time;
}

/** A page of mutual matches; `next` is the `before` of the page behind it. */
export interface MutualMatches {
  mutual_matches: MutualMatch[];
  next: Id | null;
}

/** `closed` is one whose negotiation has ended without a deal. */
export type MutualStatus = "active" | "deal_made" | "closed";

export interface NameThread {
  thread_id: Id;
}

/** A circle: its middle in degrees (WGS 84), its radius in metres. */
export interface Near {
  lat: number;
  lng: number;
  radius_m: number;
}

/** A negotiation. `rivals`, the other buyers with an offer on the table, are counted for its seller, on asking. Read from the database, `current_offer` is JSON as PostgreSQL made it. */
export interface Negotiation {
  negotiation_id: Id;
  listing_id: Id;
  buyer_id: Id;
  seller_id: Id;
  conversation_id: Id;
  status: NegotiationStatus;
  turn: Side;
  round: number;
  rounds_left: number;
  rivals: number | null;
  current_offer: Offer | null;
  version: number;
  at: Time;
}

export type NegotiationStatus = "open" | "agreed" | "completed" | "closed";

/** A page of negotiations; `next` is the `before` of the page behind it. */
export interface Negotiations {
  negotiations: Negotiation[];
  next: Id | null;
}

/** All offers in their order, each with what differs from its parent, and the SHA-256 of their terms. */
export interface NegotiationsHistory {
  offers: Offer[];
  history_sha256: string;
}

/** No fields. */
export type Nothing = Record<string, never>;

/** An offer. `price` is of one piece; `changes` names what differs from the parent; `by` is rule where an auto-rule made or answered it. Read from the database, `price` is JSON as PostgreSQL made it. */
export interface Offer {
  offer_id: Id;
  negotiation_id: Id;
  listing_id: Id;
  listing_version: number;
  maker_id: Id;
  buyer_id: Id;
  seller_id: Id;
  price: Money;
  quantity: number;
  message: string | null;
  status: OfferStatus;
  close_reason: CloseReason | null;
  by: By;
  parent_offer_id: Id | null;
  changes: string[];
  round: number;
  version: number;
  expires_at: Time;
  at: Time;
}

/** An offer that ends soon. */
export interface OfferExpiring {
  offer_id: Id;
  negotiation_id: Id;
  expires_at: Time;
}

/** An offer, and the negotiation in which it is on the table. */
export interface OfferMade {
  offer: Offer;
  negotiation: Negotiation;
}

/** An offer that was moved, its negotiation, and the deal where there is one. */
export interface OfferMoved {
  offer: Offer;
  negotiation: Negotiation;
  transaction?: Transaction | null;
}

export type OfferStatus = "pending" | "accepted" | "rejected" | "expired" | "cancelled";

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

/** Between whom. */
export interface Parties {
  buyer_id: Id;
  seller_id: Id;
}

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

/** Who moves the money: the two among themselves, or Stripe. */
export type Provider = "manual" | "stripe";

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

export interface ReadNegotiation {
  negotiation_id: Id;
}

export interface ReadRevisions {
  message_id: Id;
}

/** What speaks for a match, and how many of its points it gave. */
export interface Reason {
  reason: MatchReason;
  points: number;
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

/** What one of the two of a deal says of the other. No text: there was none, or its author is gone. */
export interface Review {
  review_id: Id;
  transaction_id: Id;
  author_id: Id;
  subject_id: Id;
  rating: number;
  text: string | null;
  at: Time;
}

/** A page of reviews; `next` is the `before` of the page behind it. */
export interface Reviews {
  reviews: Review[];
  next: Id | null;
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

export interface SayMore {
  parent_id: Id;
  text: string;
  client_id: string;
}

export interface SearchListings {
  query?: string | null;
  kind?: ListingKind | null;
  category?: Category | null;
  thread_id?: Id | null;
  user_id?: Id | null;
  price_min?: MoneyInput | null;
  price_max?: MoneyInput | null;
  near?: Near | null;
  feed?: Feed | null;
  sort?: Sort;
  before?: string | null;
  limit?: number;
}

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

export interface SetAutoRule {
  listing_id: Id;
  enabled: boolean;
  accept_at?: MoneyInput | null;
  decline_below?: MoneyInput | null;
  counter_step?: MoneyInput | null;
  max_rounds?: number | null;
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

/** What everybody sees alike of a listing: all that shared rooms are told. `price` is of one piece. `version` moves with its terms: title, description, price, category, condition, quantity, images. */
export interface SharedListing {
  listing_id: Id;
  user_id: Id;
  thread_id: Id | null;
  kind: ListingKind;
  title: string;
  description: string;
  price: Money;
  category: Category;
  condition: Condition | null;
  quantity: number;
  reserved: number;
  sold: number;
  feed: Feed;
  images: string[];
  video: string | null;
  thumbnail: string | null;
  location: Location | null;
  status: ListingStatus;
  views: number;
  likes: number;
  version: number;
  expires_at: Time;
  at: Time;
}

/** What everybody sees alike of a thread: all that its room is told. No level before anybody has boosted it. */
export interface SharedThread {
  thread_id: Id;
  title: string;
  description: string | null;
  category: Category;
  owner_id: Id;
  member_count: number;
  boost_level: string | null;
  boost_points: number;
  is_hot: boolean;
  is_pinned: boolean;
  version: number;
  at: Time;
}

/** A side of a negotiation, or neither. */
export type Side = "buyer" | "seller" | "none";

/** A session's tokens; `expires_at` is the access token's end. */
export interface SignedIn {
  user: User;
  access_token: string;
  refresh_token: string;
  expires_at: Time;
}

/** In which order; of equals the newest first, by price the oldest. */
export type Sort = "new" | "price" | "distance" | "relevance";

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

export type SubjectKind = "user" | "message" | "conversation" | "listing" | "faq";

/** As `Money`, where it may also be nothing. */
export interface Sum {
  /** in minor units */
  amount: number;
  /** ISO 4217 */
  currency: string;
}

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

/** What was agreed: the price is of one piece, `listing_version` that of the terms it was agreed about. */
export interface Terms {
  listing_id: Id;
  listing_version: number;
  price: Money;
  quantity: number;
  subtotal: Money;
  platform_fee: Sum;
  seller_payout: Sum;
  provider: Provider;
}

export interface TestAutoRule {
  listing_id: Id;
  accept_at?: MoneyInput | null;
  decline_below?: MoneyInput | null;
  counter_step?: MoneyInput | null;
  max_rounds?: number | null;
  enabled?: boolean;
}

/** What the rule would have answered to an offer; `price` is that of a counter-offer. */
export interface TestedOffer {
  offer_id: Id;
  offered: Money;
  decision: Verdict;
  price: Money | null;
}

/** The answers to the last offers, the latest first. */
export interface TestedRule {
  decisions: TestedOffer[];
}

/** All that its viewer sees of a thread. */
export interface Thread {
  thread_id: Id;
  title: string;
  description: string | null;
  category: Category;
  owner_id: Id;
  member_count: number;
  boost_level: string | null;
  boost_points: number;
  is_hot: boolean;
  is_pinned: boolean;
  version: number;
  at: Time;
  joined: boolean;
  favorite: boolean;
}

/** There is no such thread any more. */
export interface ThreadDeleted {
  thread_id: Id;
}

/** A page of threads; `next` is the `before` of the page behind it. */
export interface Threads {
  threads: Thread[];
  next: string | null;
}

/** When; `ended_at` is when it was cancelled, had failed or was refunded. `refund_failed_at` is when its provider last came to know that it could not give back what was paid. */
export interface Times {
  agreed_at: Time;
  pay_by: Time;
  buyer_confirmed_at: Time | null;
  seller_confirmed_at: Time | null;
  paid_at: Time | null;
  paid_out_at: Time | null;
  ended_at: Time | null;
  refund_failed_at: Time | null;
}

/** A deal; `client_secret` is for its buyer, who pays with it while it is pending. */
export interface Transaction {
  transaction_id: Id;
  negotiation_id: Id | null;
  offer_id: Id | null;
  listing_id: Id;
  buyer_id: Id;
  seller_id: Id;
  subtotal: Money;
  platform_fee: Sum;
  seller_payout: Sum;
  status: TransactionStatus;
  provider: Provider;
  pay_by: Time;
  paid_at: Time | null;
  paid_out_at: Time | null;
  version: number;
  at: Time;
  client_secret?: string | null;
}

export type TransactionStatus = "pending" | "completed" | "failed" | "refunded" | "cancelled";

/** A page of deals; `next` is the `before` of the page behind it. */
export interface Transactions {
  transactions: Transaction[];
  next: Id | null;
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

export interface UpdateListing {
  listing_id: Id;
  version: number;
  title?: string;
  description?: string;
  price?: MoneyInput;
  category?: Category;
  condition?: Condition | null;
  quantity?: number;
  feed?: Feed;
  images?: string[] | null;
  video?: string | null;
  thumbnail?: string | null;
  location?: LocationInput | null;
}

export interface UpdateThread {
  thread_id: Id;
  version: number;
  title?: string;
  description?: string | null;
  category?: Category;
  is_pinned?: boolean;
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

export type Verdict = "accept" | "decline" | "counter" | "leave";

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
  /** Let the server answer offers on a listing of one's own from now on. What is left out is left to oneself. */
  "autorule:set": {
    payload: SetAutoRule;
    data: AutoRule;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Look at the rule of a listing of one's own. */
  "autorule:get": {
    payload: GetAutoRule;
    data: AutoRule;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Try a rule against the last 100 offers on a listing of one's own. Nothing is changed. */
  "autorule:test": {
    payload: TestAutoRule;
    data: TestedRule;
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
  /** Ask something about a listing, for everybody to read; not across a block between oneself and its owner. */
  "faq:ask": {
    payload: AskQuestion;
    data: Faq;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Answer a question about one's own listing, as often as one likes. */
  "faq:answer": {
    payload: SayMore;
    data: Faq;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Reply to a question, an answer or another reply; not across a block between oneself and the listing's owner. */
  "faq:reply": {
    payload: SayMore;
    data: Faq;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Let an answer be the accepted one of its question, in place of another that was. */
  "faq:accept": {
    payload: AcceptAnswer;
    data: Faq;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** List what was asked about a listing: the newest question first, each followed by all that was said to it. That is in the order of time, so that a parent precedes what hangs on it; a page may end in the middle of it. */
  "faq:list": {
    payload: ListFaqs;
    data: Faqs;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Offer or want something, at a price of one piece; in a thread as one of its members. It ends after 30 days, or when said, up to 365 days ahead. */
  "listing:create": {
    payload: CreateListing;
    data: Listing;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Look at a listing. Others than its owner are counted as views, written within two seconds. */
  "listing:get": {
    payload: GetListing;
    data: Listing;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Take a listing back, for good: what is negotiated about it ends; what has been agreed stays. */
  "listing:close": {
    payload: CloseListing;
    data: Listing;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Put a listing's end off: to 30 days from now, or as said, up to 365 days ahead. What had expired is active again. */
  "listing:extend": {
    payload: ExtendListing;
    data: Listing;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Put a listing on one's wishlist, or take it off; `likes` is exact in the answer, elsewhere within two seconds. */
  "listing:like": {
    payload: LikeListing;
    data: Listing;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Find what is to be had now; with one's own `user_id` all that one has listed, whatever its status. Words are English or Arabic, as in message:search. Prices are of one currency. The newest come first; or, by `sort`, the cheapest, currency by currency; the nearest; the most relevant of the latest 500 that fit. */
  "listing:search": {
    payload: SearchListings;
    data: FoundListings;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Buy what is for sale, at the price that one saw: the stock is reserved, and the deal waits to be paid. */
  "listing:buy": {
    payload: BuyListing;
    data: Bought;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Change what a listing says, from the version that one saw. Its terms move the version: title, description, price, category, condition, quantity, images. Its currency stays, and there are no fewer pieces than are reserved or sold. */
  "listing:update": {
    payload: UpdateListing;
    data: Listing;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** List the matches of one's listings, or of one listing, the newest first. New and viewed ones are listed while both listings are to be had and there are 40 points; dismissed ones where their status is asked for; those with somebody who is blocked only once they are mutual. A page may be short where much was passed over: `next: null` alone ends the list. */
  "match:list": {
    payload: ListMatches;
    data: Matches;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Say what a match is to oneself: the last word counts, but to have viewed it takes none back. When both owners are interested, or have contacted each other, it becomes mutual: they have a private conversation about what is for sale, and a negotiation. Until then neither hears of the other's acts. Nobody is newly interested in what has fallen under 40 points. */
  "match:act": {
    payload: ActOnMatch;
    data: ActedOn;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
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
    data: MessagesHistory;
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
  /** List what one and somebody else both want, the newest first. */
  "mutual:list": {
    payload: ListMutual;
    data: MutualMatches;
    error: "invalid" | "unauthenticated" | "forbidden" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Look at a negotiation; its seller sees how many rivals have an offer on the table. */
  "negotiation:get": {
    payload: GetNegotiation;
    data: Negotiation;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** List one's negotiations, the newest first. `negotiation:changed` in one's own room keeps the list exact. */
  "negotiation:list": {
    payload: ListNegotiations;
    data: Negotiations;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Read all that was offered in a negotiation, for good. */
  "negotiation:history": {
    payload: ReadNegotiation;
    data: NegotiationsHistory;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Offer a price for what is for sale; its seller may offer one to who liked it, matched it or wrote to them. */
  "offer:make": {
    payload: MakeOffer;
    data: OfferMade;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Answer an offer with another; without `quantity` it is about as many pieces. */
  "offer:counter": {
    payload: CounterOffer;
    data: OfferMade;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Accept the offer on the table: the stock is reserved and the deal begun in the same transaction. */
  "offer:accept": {
    payload: MoveOffer;
    data: OfferMoved;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Decline the offer on the table; the buyer may make another while rounds are left. */
  "offer:decline": {
    payload: MoveOffer;
    data: OfferMoved;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Take one's own offer back from the table. */
  "offer:withdraw": {
    payload: MoveOffer;
    data: OfferMoved;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Decline all buyers' offers on a listing of one's own, or those under a price; at most 1,000 a call. */
  "offer:decline_all": {
    payload: DeclineAll;
    data: DeclinedAll;
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
  /** Report a person, or what one sees, to the administrators. That is a message, a conversation, a listing, or a question, answer or reply about one (`faq`). */
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
  /** Review the other side of a deal that is completed; once, and for good. */
  "review:create": {
    payload: CreateReview;
    data: Review;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** List what was said of somebody, the newest first. */
  "review:list": {
    payload: ListReviews;
    data: Reviews;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
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
  /** Open a thread, whose owner and first member one is. */
  "thread:create": {
    payload: CreateThread;
    data: Thread;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Look at a thread. */
  "thread:get": {
    payload: GetThread;
    data: Thread;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** List threads, pinned ones first, then the newest: all, or those that one has joined, or has not. */
  "thread:list": {
    payload: ListThreads;
    data: Threads;
    error: "invalid" | "unauthenticated" | "forbidden" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Change a thread, as its owner; to pin it is the administrators' alone. */
  "thread:update": {
    payload: UpdateThread;
    data: Thread;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Delete a thread with what is listed and said in it, as its owner or an administrator. What of its listings deals stand on is closed and stays, in no thread. */
  "thread:delete": {
    payload: GetThread;
    data: Thread;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Join a thread, and take part in its conversation, all of which one sees. */
  "thread:join": {
    payload: NameThread;
    data: Thread;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Leave a thread. An owner hands over to the longest-standing member; the last one deletes it instead. */
  "thread:leave": {
    payload: NameThread;
    data: Thread;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Mark a thread that one has joined as a favorite, or no more. */
  "thread:favorite": {
    payload: FavorThread;
    data: Thread;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Look at a deal, as one of its two or an administrator; its buyer alone sees the secret to pay it with. */
  "transaction:get": {
    payload: GetTransaction;
    data: Transaction;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** List one's deals, the newest first. `transaction:changed` in one's own room keeps the list exact. */
  "transaction:list": {
    payload: ListTransactions;
    data: Transactions;
    error: "invalid" | "unauthenticated" | "forbidden" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Say that the money has changed hands, where the two settle it among themselves; with both words it is done. */
  "transaction:confirm": {
    payload: MoveTransaction;
    data: Transaction;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Step back from a deal that is not paid: its stock is to be had again, and the two may go on negotiating. */
  "transaction:cancel": {
    payload: MoveTransaction;
    data: Transaction;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Begin to pay: the answer has the provider's secret, with which the buyer pays. Where the two settle it among themselves it is the buyer's word that the money has changed hands. */
  "transaction:pay": {
    payload: MoveTransaction;
    data: Transaction;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Give back what was paid, all of it. The stock does not come back by itself. */
  "transaction:refund": {
    payload: MoveTransaction;
    data: Transaction;
    error: "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "too_large" | "rate_limited" | "unavailable" | "internal";
    on: "socket" | "http";
  };
  /** Have a deal on paper: its terms and times, and all that was offered on the way there, with its SHA-256. */
  "transaction:receipt": {
    payload: GetTransaction;
    data: DealReceipt;
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
  /** Something was asked, answered or replied about a listing. Room: listing, user. */
  "faq:posted": [payload: Faq, meta: DurableMeta];
  /** An answer is the accepted one of its question; the one before it, if there was one, is no more. Room: listing, user. */
  "faq:accepted": [payload: Faq, meta: DurableMeta];
  /** Something is offered or wanted in the thread. Room: thread. */
  "listing:created": [payload: SharedListing, meta: DurableMeta];
  /** A listing's terms, stock or status have changed. Room: thread, listing. */
  "listing:changed": [payload: SharedListing, meta: DurableMeta];
  /** A listing's time is over. Room: thread, listing. */
  "listing:expired": [payload: SharedListing, meta: DurableMeta];
  /** Nothing is left of a listing. Room: thread, listing. */
  "listing:sold": [payload: SharedListing, meta: DurableMeta];
  /** A listing was taken back. Room: thread, listing. */
  "listing:closed": [payload: SharedListing, meta: DurableMeta];
  /** A listing of one's own and another belong together. Room: user. */
  "match:found": [payload: Match, meta: DurableMeta];
  /** A match has other points, or is something else to oneself now. Room: user. */
  "match:changed": [payload: Match, meta: DurableMeta];
  /** Both want a match, or what they began has ended. Room: user. */
  "match:mutual": [payload: MutualMatch, meta: DurableMeta];
  /** Somebody has joined the thread; ephemeral above 500 members. Room: thread. */
  "member:joined": [payload: MemberMoved, meta: DurableMeta | EphemeralMeta];
  /** Somebody has left the thread, and hears no more of it; ephemeral in its room above 500 members. Room: thread, user. */
  "member:left": [payload: MemberMoved, meta: DurableMeta | EphemeralMeta];
  /** A message was sent; everybody in the room gets it, its sender too. Room: conversation, thread. */
  "message:created": [payload: Message, meta: DurableMeta];
  /** A message says something else. Room: conversation, thread. */
  "message:edited": [payload: Message, meta: DurableMeta];
  /** A message is blank now, and so is its copy in the log. Room: conversation, thread. */
  "message:deleted": [payload: Message, meta: DurableMeta];
  /** Somebody reacted to a message, or took that back. Room: conversation, thread. */
  "message:reacted": [payload: Message, meta: DurableMeta];
  /** A negotiation stands otherwise: whose turn it is, how many rounds are left, what is on the table. Room: user. */
  "negotiation:changed": [payload: Negotiation, meta: DurableMeta];
  /** An offer was made, or moved to another state. Room: conversation. */
  "offer:changed": [payload: Offer, meta: DurableMeta];
  /** An offer ends in an hour, and then in five minutes. Room: user. */
  "offer:expiring": [payload: OfferExpiring, meta: DurableMeta];
  /** Somebody takes part in the conversation now. Room: conversation, user. */
  "participant:added": [payload: ParticipantAdded, meta: DurableMeta];
  /** Somebody takes part no more, and hears no more. Room: conversation, user. */
  "participant:removed": [payload: ParticipantRemoved, meta: DurableMeta];
  /** Somebody who takes part has another role. Room: conversation. */
  "participant:changed": [payload: ParticipantAdded, meta: DurableMeta];
  /** Somebody whom one watches comes, looks away or goes. Room: user. */
  "presence:changed": [payload: Presence, meta: EphemeralMeta];
  /** Somebody who takes part has changed what others see of them. Room: conversation, thread. */
  "profile:changed": [payload: PublicUser, meta: EphemeralMeta];
  /** Somebody has read, or received, up to there. Room: conversation, thread. */
  "receipt:changed": [payload: Receipt, meta: EphemeralMeta];
  /** One of the two of a deal has reviewed the other. Room: user. */
  "review:created": [payload: Review, meta: DurableMeta];
  /** This instance stops soon. Room: user. */
  "server:draining": [payload: ServerDraining, meta: EphemeralMeta];
  /** This socket's token ends within a minute; to that socket alone. Room: user. */
  "session:expiring": [payload: SessionExpiring, meta: EphemeralMeta];
  /** A session has ended; its sockets are closed. Room: user. */
  "session:revoked": [payload: SessionRevoked, meta: DurableMeta];
  /** A thread has other terms or another owner, or turned hot or cold. Room: thread. */
  "thread:changed": [payload: SharedThread, meta: DurableMeta];
  /** The thread is gone, and its room with it: nothing follows. Room: thread. */
  "thread:deleted": [payload: ThreadDeleted, meta: DurableMeta];
  /** A deal was made, paid, or has ended. Room: user. */
  "transaction:changed": [payload: Transaction, meta: DurableMeta];
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
