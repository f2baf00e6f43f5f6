package asd

import (
	"openvstorage/internal/disk"
)

// space tells what the ASD takes of its file system and what it may take yet. It keeps
// nothing of its own: it adds up what the parts take.
type space struct {
	opt         *Options
	dir         *directory
	contents    *contents
	spares      *spares
	reserve     *reserve
	checkpoints *checkpoints
}

// used is what the ASD takes on the disk, in bytes. Spares count as free: they are
// given up before anything is refused.
func (s *space) used() uint64 {
	const identity = blockSize
	return uint64(s.contents.bytes() + s.reserve.bytes() + s.checkpoints.bytes() + identity)
}

// limits returns how much may be used before puts are refused, the capacity,
// and the file system with what it has left, spares included.
func (s *space) limits(used uint64) (limit, capacity uint64, left disk.Usage, err error) {
	left, err = s.dir.fs.Statfs(s.dir.path)
	if err != nil {
		return 0, 0, left, err
	}
	limit, capacity, left = s.limitsOn(used, left)
	return limit, capacity, left, nil
}

// limitsOn is limits with what the file system says.
func (s *space) limitsOn(used uint64, on disk.Usage) (limit, capacity uint64, left disk.Usage) {
	_, spares := s.spares.count()
	on.Free += uint64(spares)
	if s.opt.Leave != nil {
		on.Free -= min(on.Free, s.opt.Leave())
	}
	limit, capacity = s.opt.limits(used, on.Free)
	return limit, capacity, on
}

// limits returns how much may be used before puts are refused, and the capacity, where
// so much is used and the file system has so much left for the ASD.
func (o *Options) limits(used, free uint64) (limit, capacity uint64) {
	capacity = o.Capacity
	if capacity == 0 {
		capacity = used + free
	}
	limit = uint64(float64(capacity) * o.FullAt)
	// So much is left for compaction to copy a segment.
	if segment := uint64(o.SegmentBytes); capacity >= 8*segment {
		limit = min(limit, capacity-segment)
	}
	return limit, capacity
}
