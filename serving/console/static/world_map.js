// Places on a plain world, longitude and latitude as they are (equirectangular), 90 N to 60 S.
export default {
  template: `
    <div class="c-map" role="img" :aria-label="label">
      <div class="land"></div>
      <svg viewBox="0 0 360 150">
        <path v-if="path" :d="path" />
        <circle v-for="p in points" :cx="p.longitude + 180" :cy="90 - p.latitude" :r="p.radius"
                :class="{flagged: p.flagged, now: p.now}"><title>{{ p.title }}</title></circle>
        <text v-for="p in points" :x="p.longitude + 182 + p.radius" :y="92 - p.latitude">{{ p.name }}</text>
      </svg>
    </div>`,
  props: { points: Array, path: String, label: String },
};
