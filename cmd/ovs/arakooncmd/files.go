package arakooncmd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"openvstorage/arakoon"
	"openvstorage/arakoon/state"
	"openvstorage/internal/control"
	"openvstorage/internal/disk/osdisk"
)

// info is what is printed of a backup.
type info struct {
	File     string    `json:"file"`
	Group    string    `json:"group"`
	Cluster  uuid.UUID `json:"cluster"`
	Revision uint64    `json:"revision"`
	Life     uint64    `json:"life"`
	Level    uint32    `json:"level"`
	Keys     uint64    `json:"keys"`
	Bytes    uint64    `json:"bytes"` // of keys and values
}

func infoOf(file string, i state.BackupInfo) info {
	return info{File: file, Group: i.Group, Cluster: i.Cluster, Revision: i.Index, Life: i.Life, Level: i.Level, Keys: i.Keys, Bytes: i.Bytes}
}

func (cmds commands) printInfo(list ...info) error {
	return cmds.Print(list, func(w io.Writer) {
		fmt.Fprintln(w, "FILE\tGROUP\tREVISION\tLIFE\tKEYS\tBYTES")
		for _, i := range list {
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\n", i.File, i.Group, i.Revision, i.Life, i.Keys, i.Bytes)
		}
	})
}

// backupFile is a backup that is being written. The order of durable steps: the file is made
// under its own name, written and synced, read back and checked, and then its directory is
// synced. A file that was cut short lacks its trailer and is refused wherever it is read, so
// it needs no other name until it is whole. An existing file is never written over.
type backupFile struct {
	name string
	f    *os.File
}

func createBackup(name string) (*backupFile, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) // it holds all that the group does
	return &backupFile{name, f}, err
}

// finish makes the file durable, and checks what it holds.
func (b *backupFile) finish() (info, error) {
	if err := errors.Join(b.f.Sync(), b.f.Close()); err != nil {
		return info{}, err
	}
	i, err := verify(b.name)
	if err != nil {
		return info{}, err
	}
	return i, syncDir(filepath.Dir(b.name))
}

// drop removes what is of no use: a backup that was not finished.
func (b *backupFile) drop() error { return errors.Join(b.f.Close(), os.Remove(b.name)) }

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// verify reads a whole backup.
func verify(name string) (info, error) {
	f, err := os.Open(name)
	if err != nil {
		return info{}, err
	}
	defer f.Close()
	i, err := state.Verify(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		return info{}, fmt.Errorf("backup %s: %w", name, err)
	}
	return infoOf(name, i), nil
}

func (cmds commands) backup() *cobra.Command {
	to := ""
	c := &cobra.Command{
		Use:   "backup GROUP --to FILE",
		Short: "back up one group into a new file, while it goes on",
		Long: `ovs arakoon backup writes all keys of a group, as they are at one revision, into a new
file with checksums, and reads it back. Groups name each other's records: to back up
what vDisks are made of, use ovs backup metadata, which backs up all groups as they
were at one instant.`,
		Args:              cmds.Wants("GROUP"),
		ValidArgsFunction: cmds.groupsOnly,
		RunE: func(c *cobra.Command, args []string) error {
			if to == "" {
				return cmds.Usage("%s: give --to FILE", c.CommandPath())
			}
			client, err := cmds.Client()
			if err != nil {
				return err
			}
			i, err := backupTo(c.Context(), control.OfGroups(client), args[0], to)
			if err != nil {
				return err
			}
			return cmds.printInfo(i)
		},
	}
	c.Flags().StringVar(&to, "to", "", "make this `file`")
	_ = c.MarkFlagFilename("to")
	return c
}

// backupTo backs one group up. What it has begun and not finished is removed.
func backupTo(ctx context.Context, client *control.GroupsClient, group, name string) (_ info, err error) {
	if group == "" {
		return info{}, fmt.Errorf("%w: a group has a name", control.ErrInvalid)
	}
	file, err := createBackup(name)
	if err != nil {
		return info{}, fmt.Errorf("--to: %w", err)
	}
	defer func() {
		if err != nil {
			_ = file.drop()
		}
	}()
	if _, err := client.Backup(ctx, group, func(_ string, piece []byte) error { _, err := file.f.Write(piece); return err }); err != nil {
		return info{}, err
	}
	return file.finish()
}

// listFile is in the directory of a backup of all groups, and is written last: without it the
// backup was not finished.
const listFile = "backup.json"

// listed is what listFile has. Its fields keep their names for ever.
type listed struct {
	Version int       `json:"version"` // 1
	Time    time.Time `json:"time"`
	Groups  []info    `json:"groups"`
}

func (cmds commands) metadata() *cobra.Command {
	to := ""
	c := &cobra.Command{
		Use:   "metadata --to DIR",
		Short: "back up all groups as they were at one instant, while they go on",
		Long: `ovs backup metadata makes a directory with a backup of each group, GROUP.backup, and
backup.json, which comes last and lists them. All are of one instant: whatever one
group names in another is there. Data of vDisks is not in it: that is on the disks of
the backend, and what is deleted there later is missing after a restore.

It must run where the groups are led.`,
		Args:              cmds.Wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			if to == "" {
				return cmds.Usage("%s: give --to DIR", c.CommandPath())
			}
			client, err := cmds.Client()
			if err != nil {
				return err
			}
			list, err := backupAll(c.Context(), control.OfGroups(client), to)
			if err != nil {
				return err
			}
			return cmds.printInfo(list...)
		},
	}
	c.Flags().StringVar(&to, "to", "", "make this `directory`")
	_ = c.MarkFlagDirname("to")
	return c
}

// backupAll backs all groups up into a new directory. If it fails, what it made stays without
// its list, and is refused as a whole; each file in it is whole or refused.
func backupAll(ctx context.Context, client *control.GroupsClient, dir string) ([]info, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("--to: %w", err)
	}
	all := listed{Version: 1}
	var file *backupFile
	group := ""
	finish := func() error {
		if file == nil {
			return nil
		}
		i, err := file.finish()
		if i.File = filepath.Base(i.File); err == nil && i.Group != group {
			err = fmt.Errorf("backup %s is of group %q", file.name, i.Group)
		}
		all.Groups, file = append(all.Groups, i), nil
		return err
	}
	_, err := client.Backup(ctx, "", func(of string, piece []byte) (err error) {
		if of != group {
			if err := finish(); err != nil {
				return err
			}
			if group = of; filepath.Base(of) != of {
				return fmt.Errorf("group %q has no name that a file can have", of)
			}
			if file, err = createBackup(filepath.Join(dir, of+".backup")); err != nil {
				return err
			}
		}
		_, err = file.f.Write(piece)
		return err
	})
	if err == nil {
		err = finish()
	}
	if err != nil {
		if file != nil {
			_ = file.f.Close()
		}
		return nil, fmt.Errorf("%w; the backup in %s is not whole: remove it", err, dir)
	}
	all.Time = time.Now().UTC().Round(time.Second)
	return all.Groups, writeList(dir, all)
}

func writeList(dir string, all listed) error {
	b, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, listFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	return syncDir(filepath.Dir(filepath.Clean(dir)))
}

// readList reads the list of a backup of all groups, and checks each file against it.
func readList(dir string) (all listed, err error) {
	b, err := os.ReadFile(filepath.Join(dir, listFile))
	if errors.Is(err, os.ErrNotExist) {
		return all, fmt.Errorf("%s: it has no %s, so this backup was not finished: take another", dir, listFile)
	}
	if err != nil {
		return all, err
	}
	if err := json.Unmarshal(b, &all); err != nil {
		return all, fmt.Errorf("%s: %w", filepath.Join(dir, listFile), err)
	}
	if all.Version != 1 {
		return all, fmt.Errorf("%s is of version %d, this release knows 1: use a newer one", filepath.Join(dir, listFile), all.Version)
	}
	for n, want := range all.Groups {
		if filepath.Base(want.File) != want.File {
			return all, fmt.Errorf("%s names %q, which is no file beside it", filepath.Join(dir, listFile), want.File)
		}
		i, err := verify(filepath.Join(dir, want.File))
		if err != nil {
			return all, err
		}
		if want.File = i.File; i != want {
			return all, fmt.Errorf("%s is not the backup that %s lists: they are not of one instant", i.File, listFile)
		}
		all.Groups[n] = i
	}
	return all, nil
}

// backups are those in a file, or in a directory of `ovs backup metadata`.
func backups(name string) ([]info, error) {
	s, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if s.IsDir() {
		all, err := readList(name)
		return all.Groups, err
	}
	i, err := verify(name)
	return []info{i}, err
}

// BackupOf is the file with the backup of one group: the name itself, or the group's file in a
// directory of `ovs backup metadata`. It has been read, and is whole.
func BackupOf(name, group string) (file string, err error) {
	list, err := backups(name)
	if err != nil {
		return "", err
	}
	for _, i := range list {
		if i.Group == group {
			return i.File, nil
		}
	}
	return "", fmt.Errorf("%s has no backup of group %q", name, group)
}

func (cmds commands) verify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify FILE | DIR",
		Short: "read a whole backup, and check every byte of it",
		Args:  cmds.Wants("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			list, err := backups(args[0])
			if err != nil {
				return err
			}
			return cmds.printInfo(list...)
		},
	}
}

func (cmds commands) restore() *cobra.Command {
	to, member := "", uint64(1)
	c := &cobra.Command{
		Use:   "restore FILE --to DIR | BACKUPDIR --to DIR",
		Short: "make a new group of one member of a backup",
		Long: `ovs arakoon restore makes the directory DIR, which must be absent, and DIR.marks
beside it: a member of a new group with all that the backup has. Of a backup by ovs
backup metadata it makes one in DIR for each group.

The new group is of the next life: members, clients and files of the old one are refused.`,
		Args: cmds.Wants("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if to == "" || member == 0 {
				return cmds.Usage("%s: give --to DIR, and a --member above 0", c.CommandPath())
			}
			list, err := restoreAll(args[0], to, member)
			if err != nil {
				return err
			}
			return cmds.printInfo(list...)
		},
	}
	c.Flags().StringVar(&to, "to", "", "make this `directory`")
	c.Flags().Uint64Var(&member, "member", member, "`id` of the new member, which the group must never have removed")
	_ = c.MarkFlagDirname("to")
	return c
}

// restoreAll makes members of backups, all of which are checked before anything is made. Of
// several groups none is made where something is already. If it is cut short between two of
// them, each that is there is whole; the directory is removed and all is made anew.
func restoreAll(from, to string, member uint64) ([]info, error) {
	list, err := backups(from)
	if err != nil {
		return nil, err
	}
	s, err := os.Stat(from)
	if err != nil {
		return nil, err
	}
	if s.IsDir() {
		if err := os.Mkdir(to, 0o700); err != nil {
			return nil, fmt.Errorf("--to: %w", err)
		}
	}
	for n, i := range list {
		dir := to
		if s.IsDir() {
			dir = filepath.Join(to, i.Group)
		}
		if err := restoreOne(i.File, dir, member); err != nil {
			return nil, err
		}
		list[n].File = dir
	}
	return list, syncDir(filepath.Dir(filepath.Clean(to)))
}

func restoreOne(file, dir string, member uint64) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	dir, err = filepath.Abs(dir)
	if err != nil {
		return err
	}
	_, err = arakoon.Restore(arakoon.Options{FS: osdisk.New(), Dir: dir, Member: member}, bufio.NewReaderSize(f, 1<<20))
	return err
}

func (cmds commands) dump() *cobra.Command {
	most := 0
	part := func(name, short string, dump func(dir string, w io.Writer) error) *cobra.Command {
		c := &cobra.Command{
			Use:   name + " DIR",
			Short: short,
			Args:  cmds.Wants("DIR"),
			RunE: func(c *cobra.Command, args []string) error {
				w := bufio.NewWriterSize(c.OutOrStdout(), 64<<10)
				return errors.Join(dump(args[0], w), w.Flush())
			},
		}
		c.Flags().IntVar(&most, "bytes", 64, "show so many `bytes` of each value; below 0: all")
		return c
	}
	c := cmds.Group("dump", "show as text what the files of a member that does not run hold",
		part("log", "show the entries of the log", func(dir string, w io.Writer) error { return arakoon.DumpLog(osdisk.New(), dir, w, most) }),
		part("state", "show the keys, sessions and leases of the state", func(dir string, w io.Writer) error { return arakoon.DumpState(osdisk.New(), dir, w, most) }))
	c.Long = `ovs arakoon dump reads the directory of a member that does not run, such as
DATA/arakoon/abm, and changes nothing. What is damaged is named, and it goes on behind.`
	return c
}
