// What a host needs outside of any page: nothing here touches a document, not even when it is loaded.
export { coded, shown } from "../base/legible";
export { child } from "../base/lifetime";
export { listen } from "../base/listeners";
export { pythonText } from "../base/python";
export { Attachment, refusal, type Told, whenIdleFor } from "../hosts/attachment";
export { asWho, attaching, judge, WHO, type Who, WIRE } from "../hosts/handshake";
export { Memory } from "../hosts/memory";
export { asOpened, type Opened } from "../hosts/opened";
