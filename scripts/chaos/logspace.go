package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"
)

// Bounds of the members' logs: small, so that members that were away need snapshots, and some
// of them another one.
const (
	logCompact = 256 << 10
	logSegment = 128 << 10
	logHold    = 8 << 20
	// logMost is what a log may take: what is compacted from, what is held for members that
	// catch up, and what clients write while a disk that is slow or hangs keeps it from
	// being compacted.
	logMost = 2 * (logCompact + logHold)
)

// logArguments are those of a member.
func logArguments() []string {
	return []string{"-compact", fmt.Sprint(logCompact), "-segment", fmt.Sprint(logSegment), "-hold", fmt.Sprint(logHold)}
}

// logSpace is how much room logs have taken.
type logSpace struct{ most atomic.Int64 }

// look looks at the logs of all members until ctx ends.
func (s *logSpace) look(ctx context.Context, dirs func() []string) {
	for {
		for _, dir := range dirs() {
			size, _ := used(filepath.Join(dir, "log"))
			s.most.Store(max(s.most.Load(), size))
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

// logDirs are the directories of all members.
func (c *chaos) logDirs() (dirs []string) {
	for _, m := range c.group.Members() {
		dirs = append(dirs, m.Dir)
	}
	return dirs
}

// judgeLogs notes a log that has taken too much.
func (c *chaos) judgeLogs() {
	most := c.logs.most.Load()
	if most > logMost {
		c.r.violation("a log had %d KiB, and %d are the most that it may have", most>>10, logMost>>10)
	}
	c.say("no log had more than %d KiB at once; %d are the most that one may have", most>>10, logMost>>10)
}
