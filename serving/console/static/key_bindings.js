// Tells the server of the keys that it bound, and of no others. A binding is a key, or two after each other.
export default {
  template: "<span hidden></span>",
  props: { bindings: Array },
  mounted() {
    let before = "";
    let at = 0;
    this.onKey = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
      if (["INPUT", "TEXTAREA", "SELECT"].includes(document.activeElement?.tagName)) return;
      if (document.querySelector(".q-dialog")) return;
      const both = event.timeStamp - at < 1500 ? `${before} ${event.key}` : "";
      before = event.key;
      at = event.timeStamp;
      const found = this.bindings.includes(both) ? both : this.bindings.includes(event.key) ? event.key : null;
      if (found === null) return;
      event.preventDefault();
      before = "";
      this.$emit("press", found);
    };
    document.addEventListener("keydown", this.onKey);
  },
  unmounted() {
    document.removeEventListener("keydown", this.onKey);
  },
};
