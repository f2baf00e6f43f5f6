package volumedriver

import "time"

// What the storer and the garbage collector decide is here, as functions of figures alone.
// These are the limits by which they decide, and why they are what they are.
const (
	// paceLow and paceHigh are fill levels of the write buffer between which uploads
	// speed up: idle priority below, full speed above. A quarter is room enough for
	// what is written again and need not be stored; above three quarters a burst
	// would have to wait.
	paceLow  = 0.25
	paceHigh = 0.75

	// littleLive: if at most one byte in so many of the buffer is live, little is. A group
	// takes all closed TLogs then: most of what they hold was overwritten, and a group that
	// ended earlier would store what later TLogs overwrite. It is a quarter, because the
	// buffer is three quarters full at most when the group is chosen: the upload of a
	// quarter ends before the buffer is full.
	littleLive = 4

	// garbageShare and garbageLeast: garbage in the backend is worth a checkpoint if it is
	// more than one in garbageShare of the bytes stored there, and more than garbageLeast
	// bytes. An eighth is how much more space than it needs a vDisk may take; 64 MiB are a
	// second of uploads, and less than a checkpoint of a large map.
	garbageShare = 8
	garbageLeast = 64 << 20

	// garbageObjects: more dead SCOs than that are worth a checkpoint too, if they are more
	// than one in garbageShare of all. Their sizes are not known before the first listing.
	garbageObjects = 8

	// lookShare: dead SCOs are looked for in the midst of a group when a quarter as many
	// bytes were written since the last look as garbage is worth a checkpoint. So no more
	// than a quarter of that is overlooked.
	lookShare = 4

	// pendingMax bounds the pending checkpoints, each of which keeps the map's pages in
	// memory as they were. It is one for each eighth of the buffer.
	pendingMax = 8
)

// pace decides how a vDisk uploads now: how many SCOs side by side (0: none), and how long
// to rest after each. fill is the share of the buffer that waits for the backend, idle is
// how long nothing was written to the vDisk, urgent says that somebody waits for the
// upload. It is a pure function.
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

// early reports whether a group is better chosen later. fill is as above; of the written
// bytes that wait, live can still be read. A vDisk that has overwritten much is likely to
// go on with that. What a group itself overwrites is not uploaded, and a group that is
// chosen later overwrites more. So uploads begin at paceLow if nothing was overwritten, at
// paceHigh if all was, and in between else. It is a pure function.
func early(fill float64, written, live int64) bool {
	dead := 1 - float64(min(live, written))/float64(max(written, 1))
	if written == 0 {
		dead = 0 // nothing to upload, nothing to save
	}
	return fill < paceLow+(paceHigh-paceLow)*dead
}

// groupLen is how many of the closed TLogs, oldest first, become a group: at least one, and
// more as long as little of them is live. So no group keeps the buffer's files for long,
// and the garbage that it makes in the backend is collected soon. live has the bytes of
// each TLog that can still be read. next and last are the indexes of the TLogs for which
// the oldest and the newest pending checkpoint wait, len(live) if none does: a checkpoint
// lets garbage go. A TLog of the buffer has tlogBytes, the whole buffer bufferBytes.
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

// garbage are the dead SCOs that can be deleted once a checkpoint covers their death.
type garbage struct {
	waiting  int   // SCOs
	left     int   // SCOs that there are, without those that can be deleted at once
	pending  bool  // a checkpoint is pending, which covers some
	unfrozen int   // SCOs whose death none pending covers
	stored   int64 // of these, bytes in the backend
	local    int64 // and in the buffer
}

// worthCheckpoint reports whether the garbage is worth a checkpoint. all is how many bytes
// are stored, bufferBytes the size of the buffer; free says that all is to go, however
// little it is.
//
// A pending checkpoint is committed when everything is stored that it covers, and more
// SCOs may die until then. If one is pending, another one is made for an eighth of what is
// stored, or for an eighth of the buffer when what died in the buffer is counted too: a
// group that ends earlier will store some of that, and a checkpoint cannot be made for a
// seq in the past.
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

// timeToLook reports whether dead SCOs are to be looked for in the midst of a group, if so
// many bytes were written since the last look. all is how many bytes are stored.
func timeToLook(written uint64, all int64) bool {
	return written >= uint64(muchGarbage(all))/lookShare
}
