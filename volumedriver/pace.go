package volumedriver

import "time"

// Fill levels of the write buffer between which uploads speed up: idle
// priority below, full speed above.
const (
	paceLow  = 0.25
	paceHigh = 0.75
)

// pace decides how a vDisk uploads now: how many SCOs side by side (0: none),
// and how long to rest after each. fill is the share of the buffer that waits
// for the backend, idle how long the vDisk has not been written, urgent
// whether somebody waits for the upload. It is a pure function.
func pace(fill float64, idle, idleAfter time.Duration, urgent bool, slots int) (parallel int, rest time.Duration) {
	switch {
	case urgent || fill >= paceHigh:
		return slots, 0
	case fill >= paceLow:
		// From one at a time with long rests to full speed without: what waits
		// longer is more likely overwritten, and then need not be uploaded.
		left := (paceHigh - fill) / (paceHigh - paceLow)
		return 1 + int((1-left)*float64(slots-1)), time.Duration(left * left * float64(200*time.Millisecond))
	case idle >= idleAfter:
		return 1, 20 * time.Millisecond
	}
	return 0, 0
}

// worthwhile decides whether a vDisk that is being written, and for whose
// upload nobody waits, begins to store a group now. Of its size bytes, store
// would go to the backend, and live are what the map still has. With more TLogs
// in the group later, overwrites make the share to be stored smaller. The fuller
// the buffer, the larger a share will do; where next to nothing is overwritten,
// waiting gains nothing. It is a pure function.
func worthwhile(store, live, size int64, fill float64) bool {
	if float64(live) >= 0.9*float64(size) {
		return true
	}
	return float64(store) <= float64(size)*(fill-paceLow)/(paceHigh-paceLow)
}
