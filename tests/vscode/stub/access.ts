// Whether an extension may use kernels; the rules are the Jupyter extension's. Allow and Deny count for all kernels.
// Cancel decides nothing, but the kernel's object keeps this answer until "Manage Access" changes something.
import { window } from "vscode";

const ASKER = "Residscope";

/** What the real one throws where access is denied. Its name is documented. */
class AccessRevoked extends Error {
  override name = "vscode.jupyter.apiAccessRevoked";
}

export class Access {
  #granted: boolean | null = null;
  #answers = new WeakMap<object, Promise<boolean>>();
  #open: Promise<boolean> | null = null;

  /** Passes where code may run in this kernel; asks where nobody has decided. */
  async check(kernel: object): Promise<void> {
    let answer = this.#answers.get(kernel);
    if (!answer) {
      answer = this.#granted === null ? (this.#open ??= this.#ask()) : Promise.resolve(this.#granted);
      this.#answers.set(kernel, answer);
    }
    if (!(await answer)) throw new AccessRevoked("Access to Jupyter Kernel has been revoked");
  }

  set(granted: boolean): void {
    this.#granted = granted;
    this.#answers = new WeakMap();
  }

  /** The list of "Jupyter: Manage Access To Jupyter Kernels". */
  async manage(): Promise<void> {
    const item = { label: ASKER, picked: this.#granted === true };
    const chosen = await window.showQuickPick([item], { title: "Manage Access To Jupyter Kernels", canPickMany: true });
    if (chosen) this.set(chosen.length > 0);
  }

  async #ask(): Promise<boolean> {
    const question = `Do you want to grant Kernel access to the extension ${ASKER}?`;
    const detail = "This allows the extension to execute code against Jupyter Kernels.";
    const answer = await window.showInformationMessage(question, { modal: true, detail }, "Allow", "Deny");
    this.#open = null;
    if (answer) this.#granted = answer === "Allow";
    return answer === "Allow";
  }
}
