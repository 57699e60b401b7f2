// What a host needs outside of any page: nothing here touches a document, not even when it is loaded.
export { coded, shown } from "../base/legible";
export { child } from "../base/lifetime";
export { pythonText } from "../base/python";
export { asWho, attaching, judge, WHO, type Who, WIRE } from "../hosts/handshake";
export { asSelection } from "../state/selection";
