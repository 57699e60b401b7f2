// Decides whether an extension may use kernels, by the rules of the Jupyter extension. Allow and Deny apply to all
// kernels. Cancel denies access only to the kernel in question, until the user changes the access ("Manage Access").
import { window } from "vscode";

const ASKER = "Residscope";

/** The Jupyter extension throws this error if access is denied. Its documentation gives the name. */
class AccessRevoked extends Error {
  override name = "vscode.jupyter.apiAccessRevoked";
}

export class Access {
  #granted: boolean | null = null;
  #answers = new WeakMap<object, Promise<boolean>>();
  #open: Promise<boolean> | null = null;

  /** Throws if code may not run in this kernel. Asks the user first, if nobody has decided yet. */
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

  /** Shows the list of the command "Jupyter: Manage Access To Jupyter Kernels". */
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
