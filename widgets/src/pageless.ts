// What a host needs outside of any page: nothing here touches a document, not even when it is loaded.
export { coded, shown } from "./legible";
export { child } from "./lifetime";
export { asSelection } from "./selection";
export { pythonText } from "./python";
export { asWho, attaching, judge, WHO, type Who, WIRE } from "./who";
