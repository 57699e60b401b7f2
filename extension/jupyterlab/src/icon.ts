import { LabIcon } from "@jupyterlab/ui-components";

import source from "../style/icon.svg";

/** The icon: bars for positive (blue) and negative (orange) contributions. */
export const residscopeIcon = new LabIcon({ name: "residscope:icon", svgstr: source });
