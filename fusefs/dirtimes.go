package fusefs

import (
	"strings"
	"sync"
)

// dirTimes are the times of directories that were changed since the mount, by path.
// The tree gets them soon after: see timeKeeper.
type dirTimes struct {
	mu   sync.Mutex
	last map[string]dirTime
}

// dirTime is when a directory was changed.
type dirTime struct {
	at   int64 // nanoseconds since 1970
	kept bool  // nothing is left to do: the tree has it, or has no entry for the directory
}

// touch notes that something was made, removed or renamed in directories at a time.
func (t *dirTimes) touch(at int64, dirs ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, dir := range dirs {
		t.last[dir] = dirTime{at: max(at, t.last[dir].at)}
	}
}

// changed is when a directory was changed since the mount, 0 if it was not.
func (t *dirTimes) changed(dir string) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last[dir].at
}

// forget forgets the time of a directory that is gone.
func (t *dirTimes) forget(dir string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.last, dir)
}

// stored forgets the time of a directory whose entry has that time, unless the
// directory was changed again since.
func (t *dirTimes) stored(dir string, at int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last[dir].at <= at {
		delete(t.last, dir)
	}
}

// move has the times of a directory and of those below it follow a renaming.
func (t *dirTimes) move(from, to string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for dir, at := range t.last {
		if rest, ok := strings.CutPrefix(dir, from); ok && (rest == "" || rest[0] == '/') {
			delete(t.last, dir)
			t.last[to+rest] = at
		}
	}
}

// due are the times that the tree does not have yet.
func (t *dirTimes) due() map[string]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	due := map[string]int64{}
	for dir, last := range t.last {
		if !last.kept {
			due[dir] = last.at
		}
	}
	return due
}

// storedAll notes that the tree has the times that were due, except for directories that were
// changed again since.
func (t *dirTimes) storedAll(due map[string]int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for dir, at := range due {
		if last, ok := t.last[dir]; ok && last.at == at {
			last.kept = true
			t.last[dir] = last
		}
	}
}
