package members

import (
	"fmt"
	"path"

	"github.com/google/uuid"

	"openvstorage/arakoon/roster"
	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
)

// LoadRoster opens what a data directory knows of where members are.
func LoadRoster(fsys disk.FS, dir string, cluster uuid.UUID) (*roster.File, error) {
	f, err := roster.Load(fsys, path.Join(dir, rosterFile), cluster)
	if err != nil {
		return nil, fmt.Errorf("where the members of groups are: %w", err)
	}
	return f, nil
}

// Here is the member of a group that a data directory has by its record, and the directory
// that it is in; number 0: none.
func Here(dir *datadir.Directory, group string) (number uint64, at string) {
	record := dir.Record()
	for _, name := range record.Groups {
		if n, ok := memberOf(name, group); ok {
			return n, path.Join(dir.Path, "arakoon", name)
		}
	}
	return 0, ""
}
