// The library for the part of a host that runs outside a page. Nothing here uses a document, not even when it is
// loaded.
export { coded, shown } from "../base/legible";
export { child } from "../base/lifetime";
export { listen } from "../base/listeners";
export { pythonText } from "../base/python";
export { Attachment, refusal, type Told, whenIdleFor } from "../hosts/attachment";
export { asKernelInfo, attaching, judge, KERNEL_INFO, type KernelInfo, WIRE } from "../hosts/handshake";
export { Memory } from "../hosts/memory";
export { asOpened, type Opened } from "../hosts/opened";
