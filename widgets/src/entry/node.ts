// The library for the part of a host that runs outside a page. This code never uses `document`, not even while it is
// imported.
export { asChapter } from "../base/chapters";
export { coded, shown } from "../base/legible";
export { child } from "../base/lifetime";
export { listen } from "../base/listeners";
export { Attachment, type AttachmentListener, refusal, whenIdleFor } from "../hosts/attachment";
export { attachAndDescribe, MIME, newToken, requestExpression } from "../hosts/executed/expressions";
export { type OutputData, Pieces } from "../hosts/executed/pieces";
export { asKernelInfo, attachExpression, KERNEL_INFO, type KernelInfo, linkStateFor, WIRE } from "../hosts/handshake";
export { Memory } from "../hosts/memory";
export { asOpened, type Opened } from "../hosts/opened";
