import { LabIcon } from "@jupyterlab/ui-components";

import source from "../style/icon.svg";

/** The icon: bars of rows that add (blue) and take away (orange). */
export const residscopeIcon = new LabIcon({ name: "residscope:icon", svgstr: source });
