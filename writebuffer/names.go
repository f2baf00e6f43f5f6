package writebuffer

import (
	"errors"
	"io/fs"
	"path"
	"sync"

	"openvstorage/internal/disk"
)

// names makes and takes away names in the directories of a buffer, durably. A sync
// of a directory that fails is told to one caller, and counts for every name that
// waited for it: so one caller at a time makes or takes names in a directory.
type names struct {
	fs disk.FS

	mu    sync.Mutex
	turns map[string]*sync.Mutex // one caller of add at a time, by directory
	owed  map[string]bool        // names that were taken away, perhaps not durably
}

func newNames(fsys disk.FS) *names {
	return &names{fs: fsys, turns: make(map[string]*sync.Mutex), owed: make(map[string]bool)}
}

// add calls do, which makes a name in the directory, and returns when that is durable.
// After an error the name may be there without being durable: the caller takes it
// away again.
func (m *names) add(dir string, do func() error) error {
	m.mu.Lock()
	turn := m.turns[dir]
	if turn == nil {
		turn = new(sync.Mutex)
		m.turns[dir] = turn
	}
	m.mu.Unlock()
	turn.Lock()
	defer turn.Unlock()
	if err := do(); err != nil {
		return err
	}
	return m.fs.SyncDir(dir)
}

// remove takes a name away, by the function remove, and returns when that is durable.
// The name may be gone already.
//
// After a failed sync the removal may be lost although the name is not seen any more,
// and no later sync makes it durable (P6). So the next call makes the name again, by
// anew, and then has something to remove that its own sync makes durable. If anew is
// nil, the name is made as an empty file. A crash would have left the name as well, so
// nobody is misled by it.
func (m *names) remove(name string, remove func(string) error, anew func() error) error {
	if anew == nil {
		anew = func() error {
			f, err := m.fs.OpenFile(name, disk.Write|disk.Create, 0o600)
			if err != nil {
				return err
			}
			return f.Close()
		}
	}
	err := m.add(path.Dir(name), func() error {
		if m.owes(name) {
			if err := anew(); err != nil {
				return err
			}
		}
		m.owe(name, true)
		if err := remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
	if err == nil {
		m.owe(name, false)
	}
	return err
}

// owes reports whether the removal of a name is perhaps not durable.
func (m *names) owes(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.owed[name]
}

func (m *names) owe(name string, owed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if owed {
		m.owed[name] = true
	} else {
		delete(m.owed, name)
	}
}

// forget drops what is kept of a directory that is durably gone, and of a name in it.
func (m *names) forget(dir, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.turns, dir)
	delete(m.owed, path.Join(dir, name))
}
