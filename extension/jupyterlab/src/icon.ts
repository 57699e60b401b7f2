import { LabIcon } from "@jupyterlab/ui-components";

import source from "../style/icon.svg";

/** Rows that add (blue) and take away (orange): what the whole program is about. */
export const residscopeIcon = new LabIcon({ name: "residscope:icon", svgstr: source });
