// Events on their way to the server, in order. They lie in the browser's storage until the server has them on its disk, so that
// neither a killed server nor a closed page loses one. Each has an id, by which the server knows one that it has already.
const MOST = 200, RETRY = 2000; // events a request, ms between two tries

export class Outbox {
  #post; #tell; #sent; #name = ""; #events = []; #sending = null;

  constructor(post, tell, sent) { [this.#post, this.#tell, this.#sent] = [post, tell, sent]; }

  open(name) {
    this.#name = `${name}.${crypto.getRandomValues(new Uint32Array(1))[0]}`;
    for (const key of Object.keys(localStorage).filter((one) => one.startsWith(`${name}.`))) { // of pages that were closed
      try { this.#events.push(...JSON.parse(localStorage.getItem(key))); } catch { /* cut off while it was written */ }
      this.#store();
      localStorage.removeItem(key);
    }
    if (this.#events.length) this.#send();
  }

  get waiting() { return this.#events.length; }

  put(who, event) {
    const id = [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    this.#events.push({ who, event: { ...event, id, time: Date.now() / 1000 } });
    this.#store();
    this.#send();
  }

  async sent() { while (this.#sending) await this.#sending; }

  #store() {
    try {
      if (this.#events.length) localStorage.setItem(this.#name, JSON.stringify(this.#events));
      else localStorage.removeItem(this.#name);
    } catch { /* full: they stay in memory */ }
  }

  #send() { this.#sending ??= this.#all().finally(() => { this.#sending = null; }); }

  async #all() {
    while (this.#events.length) {
      const { who } = this.#events[0], end = this.#events.findIndex((one) => one.who !== who);
      const some = this.#events.slice(0, Math.min(end < 0 ? MOST : end, MOST));
      try {
        const reply = await this.#post("/save", { who, events: some.map((one) => one.event) });
        this.#events = this.#events.slice(some.length);
        this.#store();
        this.#tell(this.#events.length, "");
        this.#sent(reply);
      } catch (error) {
        this.#tell(this.#events.length, error.message);
        await new Promise((go) => setTimeout(go, RETRY));
      }
    }
  }
}
