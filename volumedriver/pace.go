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

// early reports whether a group is better chosen later. fill is as above; of the
// written bytes that wait, live can still be read. Who has written again will most
// likely do so once more, and what a group overwrites itself is not uploaded; the
// longer it gets, the more that is. So uploads begin between paceLow, where
// nothing was written again, and paceHigh. It is a pure function.
func early(fill float64, written, live int64) bool {
	dead := 1 - float64(min(live, written))/float64(max(written, 1))
	if written == 0 {
		dead = 0 // nothing to upload, nothing to save
	}
	return fill < paceLow+(paceHigh-paceLow)*dead
}
