package volumedriver

import "time"

// What the storer decides is here: functions of figures alone. The figures that it
// goes by, and why they are what they are:
const (
	// paceLow and paceHigh are fill levels of the write buffer between which uploads
	// speed up: idle priority below, full speed above. A quarter is room enough for
	// what is written again and need not be stored; above three quarters a burst
	// would have to wait.
	paceLow  = 0.25
	paceHigh = 0.75

	// littleLive: of the buffer's bytes one in so many that is live is little. A
	// group of no more takes all TLogs there are, as most of them was overwritten and
	// a group that ended earlier would store what those behind it overwrite. A
	// quarter, so that the upload of the group ends before the buffer, which was
	// three quarters full at most, is full.
	littleLive = 4

	// garbageShare and garbageLeast: garbage in the backend is worth a checkpoint if it
	// is one of so many bytes that are stored there, and so many at all. An eighth
	// more space is what a vDisk may cost; 64 MiB are a second of uploads, and less
	// than a checkpoint of a large map.
	garbageShare = 8
	garbageLeast = 64 << 20

	// garbageObjects: so many SCOs are worth one too, if they are one in garbageShare
	// of all: what lies in them is not known before the first listing.
	garbageObjects = 8

	// lookShare: dead SCOs are looked for in the midst of a group when one in so many
	// bytes of the garbage that is worth a checkpoint was written since the last
	// look: no more than a quarter of that is overlooked.
	lookShare = 4

	// pendingMax bounds the checkpoints that wait, each of which keeps the map's pages
	// as they were. One for each eighth of the buffer.
	pendingMax = 8
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

// groupLen is how many of the closed TLogs, oldest first, become a group: one at
// least, more as long as little of them is live, so that no group keeps the buffer's
// files for long, and the garbage that it makes in the backend is soon collected.
// live are the bytes of each that can still be read; next and last are where the next
// checkpoint waits, which lets garbage go, and the last one, len(live) if none does.
// A TLog of the buffer has tlogBytes, all of it bufferBytes.
func groupLen(live []int64, next, last int, tlogBytes, bufferBytes int64) int {
	var total int64
	for _, n := range live {
		total += n
	}
	limit, end := tlogBytes, next
	if little := bufferBytes / littleLive; total <= little {
		limit, end = max(limit, little), last
	}
	var sum int64
	for i, n := range live {
		if sum += n; i > 0 && sum > limit {
			return i
		}
		if i == end {
			return i + 1
		}
	}
	return len(live)
}

// garbage is what nobody could reach, once a checkpoint covered its death.
type garbage struct {
	waiting  int   // SCOs
	left     int   // SCOs that there are, but for those that can be deleted at once
	pending  bool  // a checkpoint is pending, which covers some
	unfrozen int   // SCOs whose death none pending covers
	stored   int64 // of these, bytes in the backend
	local    int64 // and in the buffer
}

// worthCheckpoint reports whether the garbage is worth a checkpoint. all is how much
// is stored, bufferBytes the size of the buffer, free whether all is to go, though it
// be little.
//
// A checkpoint is let go when all is stored that the buffer had by then, and more may
// die until then. Where one is pending already, another one is made for an eighth
// of what is stored, or an eighth of the buffer with what died there: some of that
// will be stored by a group that ends before, and a checkpoint is only made where the
// vDisk is now.
func worthCheckpoint(g garbage, all, bufferBytes int64, free bool) bool {
	switch {
	case free:
		return g.unfrozen > 0 // the pending one lets the others go
	case g.pending:
		return g.stored > muchGarbage(all) || g.stored+g.local > bufferBytes/pendingMax
	}
	return g.waiting > max(garbageObjects, g.left/garbageShare)
}

// muchGarbage is how many bytes of garbage in the backend are worth a checkpoint,
// of all that are stored.
func muchGarbage(all int64) int64 { return max(garbageLeast, all/garbageShare) }

// timeToLook reports whether dead SCOs are to be looked for in the midst of a group:
// so much was written since the last look.
func timeToLook(written uint64, all int64) bool {
	return written >= uint64(muchGarbage(all))/lookShare
}
