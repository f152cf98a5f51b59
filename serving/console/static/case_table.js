// The queue: cases as rows, a selection that stays on its case while rows come and go, and its keys.
// Texts are interpolated, never HTML.
export default {
  template: `
    <table class="c-table c-cases" role="grid" aria-label="Cases">
      <thead><tr>
        <th>Severity</th><th>User</th><th>Found</th><th class="num">Alerts</th><th class="num">Amount</th>
        <th>Highest score</th><th class="num">Age</th>
      </tr></thead>
      <tbody>
        <tr v-for="row in rows" :key="row.case_id" class="go" :class="{on: row.case_id === selected}"
            :data-case="row.case_id" :aria-selected="row.case_id === selected" @click="open(row.case_id)">
          <td class="severity"><span class="c-chip" :class="'k-' + row.severity">{{ row.severity }}</span></td>
          <td class="user cut"><span class="mono cut">{{ row.user }}</span>
            <span v-if="row.mark" class="c-chip" :class="'k-' + row.mark_class">{{ row.mark }}</span></td>
          <td class="kinds"><span class="c-chips"><span v-for="kind in row.kinds" class="c-chip">{{ kind }}</span></span></td>
          <td class="num alerts">{{ row.alerts }}</td>
          <td class="num amount">{{ row.amount }}</td>
          <td class="score"><span class="c-bar wide"><i :class="row.severity" :style="{width: row.width}"></i></span>{{ row.score }}</td>
          <td class="num age soft">{{ age(row.opened_at) }}</td>
        </tr>
      </tbody>
    </table>`,
  props: { rows: Array, judging: Boolean },
  data: () => ({ selected: null, now: Date.now() }),
  mounted() {
    this.onKey = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (document.querySelector(".q-dialog")) return;
      if (["INPUT", "TEXTAREA", "SELECT"].includes(document.activeElement?.tagName)) return;
      if (event.key === "j" || event.key === "ArrowDown") this.move(1, event);
      else if (event.key === "k" || event.key === "ArrowUp") this.move(-1, event);
      else if (event.key === "Enter" && this.row()) this.open(this.selected);
      else if (event.key === "o" && this.row()) this.open(this.selected);
      else if (this.judging && this.row() && !event.repeat && ["f", "l", "u"].includes(event.key))
        this.$emit("judge", { case_id: this.selected, key: event.key });
    };
    document.addEventListener("keydown", this.onKey);
    this.ticking = setInterval(() => (this.now = Date.now()), 1000);
  },
  unmounted() {
    document.removeEventListener("keydown", this.onKey);
    clearInterval(this.ticking);
  },
  methods: {
    row() {
      return this.rows.find((row) => row.case_id === this.selected);
    },
    move(step, event) {
      if (!this.rows.length) return;
      event.preventDefault();
      const at = this.rows.findIndex((row) => row.case_id === this.selected);
      const next = at < 0 ? 0 : Math.min(this.rows.length - 1, Math.max(0, at + step));
      this.selected = this.rows[next].case_id;
      this.$nextTick(() => this.$el.querySelector("tr.on")?.scrollIntoView({ block: "nearest" }));
    },
    open(case_id) {
      this.selected = case_id;
      this.$emit("open", case_id);
    },
    age(at) {
      const s = Math.max(0, (this.now - at) / 1000);
      if (s < 60) return `${Math.floor(s)} s`;
      if (s < 3600) return `${Math.floor(s / 60)} min`;
      if (s < 172800) return `${Math.floor(s / 3600)} h`;
      return `${Math.floor(s / 86400)} d`;
    },
  },
};
