package writebuffer

import (
	"slices"
	"time"

	"openvstorage/sco"
	"openvstorage/tlog"
)

// backlog is what the append section has let go of: the sealed SCOs that wait to be
// synced, those that wait to be stored, and the closed TLogs.
//
// It shares the lock of the append section, in which alone it is reached: an SCO
// and a TLog move here at a point in the order of seq, together with what the
// section itself keeps of them.
type backlog struct {
	unsynced []*SCO  // sealed, in order
	sealed   []*SCO  // sealed, of the open TLog, in order
	unstored []*SCO  // sealed, of closed TLogs that are not stored, in order
	closed   []*TLog // in order; stored ones too, until a checkpoint covers them
}

// addSCO takes an SCO that was sealed.
func (k *backlog) addSCO(s *SCO) {
	k.unsynced = append(k.unsynced, s)
	k.sealed = append(k.sealed, s)
}

// addTLog takes a TLog that was closed, with the SCOs that were sealed since the one
// before it.
func (k *backlog) addTLog(t *TLog) {
	t.scos = k.sealed
	k.unstored = append(k.unstored, t.scos...)
	k.sealed = nil
	k.closed = append(k.closed, t)
}

// addResumed takes TLogs of recovered entries, whose SCOs are durable and were the
// sealed ones until now.
func (k *backlog) addResumed(tlogs []*TLog) {
	for _, t := range tlogs {
		k.unstored = append(k.unstored, t.scos...)
	}
	if len(tlogs) > 0 {
		k.sealed = nil
		k.closed = append(k.closed, tlogs...)
	}
}

// addRecovered takes SCOs that a restart has found sealed. Their entries are in no TLog of
// this epoch yet.
func (k *backlog) addRecovered(scos []*SCO) { k.sealed = append(k.sealed, scos...) }

// addStored takes a TLog that is stored, or has nothing to store, and is the newest.
func (k *backlog) addStored(t *TLog) { k.closed = append(k.closed, t) }

// addOlder takes a stored TLog of an earlier epoch that is older than all others.
func (k *backlog) addOlder(t *TLog) { k.closed = slices.Insert(k.closed, 0, t) }

// work is what waits to be stored.
func (k *backlog) work() Work {
	w := Work{SCOs: append(slices.Clone(k.unstored), k.sealed...)}
	for _, t := range k.closed {
		if !t.stored {
			w.TLogs = append(w.TLogs, t)
		}
	}
	return w
}

// empty reports whether nothing waits to be stored.
func (k *backlog) empty() bool {
	return len(k.sealed)+len(k.unstored) == 0 && !slices.ContainsFunc(k.closed, func(t *TLog) bool { return !t.stored })
}

// stored marks the TLogs up to id as stored, and returns those that were not, and
// their SCOs.
func (k *backlog) stored(id tlog.ID) (tlogs []*TLog, scos []*SCO) {
	for _, t := range k.closed {
		if t.ID <= id && !t.stored {
			t.stored = true
			tlogs = append(tlogs, t)
			scos = append(scos, t.scos...)
			t.scos = nil
		}
	}
	k.unstored = slices.DeleteFunc(k.unstored, func(s *SCO) bool { return slices.Contains(scos, s) })
	for _, s := range scos {
		s.stored = true
	}
	// The catalog has their entries: nobody needs these files to be durable.
	k.unsynced = slices.DeleteFunc(k.unsynced, func(s *SCO) bool { return s.stored })
	return tlogs, scos
}

// free takes the stored TLogs up to id out.
func (k *backlog) free(id tlog.ID) (gone []*TLog) {
	k.closed = slices.DeleteFunc(k.closed, func(t *TLog) bool {
		if t.ID <= id && t.stored {
			gone = append(gone, t)
			return true
		}
		return false
	})
	return gone
}

// holdUnsynced appends the SCOs that are to be synced to held, each of them held:
// once stored, it might be evicted meanwhile.
func (k *backlog) holdUnsynced(held []*SCO) []*SCO {
	for _, s := range k.unsynced {
		if s.acquire() {
			held = append(held, s)
		}
	}
	return held
}

// passSynced forgets the first SCOs to be synced that are.
func (k *backlog) passSynced() {
	for len(k.unsynced) > 0 && k.unsynced[0].synced.Load() {
		k.unsynced = k.unsynced[1:]
	}
}

// nextSync returns the first SCO that is not synced, held, if it is old enough to be
// synced in the background; nil if it is not, or there is none.
func (k *backlog) nextSync(now time.Time, age time.Duration) *SCO {
	for _, s := range k.unsynced {
		if s.synced.Load() {
			continue
		}
		if (age <= 0 || now.Sub(s.sealedAt) >= age) && s.acquire() {
			return s
		}
		return nil
	}
	return nil
}

// bytes is how many bytes of SCOs wait to be stored.
func (k *backlog) bytes() (n int64) {
	for _, list := range [...][]*SCO{k.unstored, k.sealed} {
		for _, s := range list {
			n += int64(s.used.Load()) * sco.ClusterSize
		}
	}
	return n
}

// tlogBytes is how many bytes the closed TLogs have.
func (k *backlog) tlogBytes() (n int64) {
	for _, t := range k.closed {
		n += t.Size
	}
	return n
}

// newest is the TLog that was closed last, if it is not stored; or nil.
func (k *backlog) newest() *TLog {
	if n := len(k.closed); n > 0 && !k.closed[n-1].stored {
		return k.closed[n-1]
	}
	return nil
}
