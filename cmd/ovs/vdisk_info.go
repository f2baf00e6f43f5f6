package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"openvstorage/host"
	"openvstorage/internal/control"
)

func (cmds vdiskCommands) info() *cobra.Command {
	return &cobra.Command{
		Use:               "info NAME",
		Short:             "show one vDisk: sizes, state, snapshots, where it is served",
		Args:              wants("NAME"),
		ValidArgsFunction: cmds.offers().names(false),
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, args []string) error {
			v, err := client.Info(c.Context(), args[0])
			if err != nil {
				return err
			}
			return cmds.print(v, func(w io.Writer) { writeInfo(w, v) })
		}),
	}
}

func writeInfo(w io.Writer, v control.VDisk) {
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, value)
		}
	}
	row("name", v.Name)
	row("id", v.ID.String())
	if v.Size > 0 {
		row("size", fmt.Sprintf("%s (%d bytes)", human(v.Size), v.Size))
	} else {
		row("size", orUnknown(v.Size))
	}
	row("state", v.State)
	row("reason", v.Reason)
	if v.State != control.StateElsewhere {
		row("local", human(v.Local))
		row("stored", human(v.Stored))
		row("backlog", human(v.Backlog))
	}
	row("parent", v.Parent)
	row("children", strings.Join(v.Children, ", "))
	if s := v.Storage; s != nil {
		row("preset", s.Preset)
		row("encryption", encryption(s))
	}
	if v.Host != uuid.Nil { // an older server does not tell
		row("host", v.Host.String())
	}
	row("epoch", fmt.Sprint(v.Epoch))
	row("created", when(v.Created))
	for _, uri := range v.URIs {
		row("uri", uri)
	}
	for _, s := range v.Snapshots {
		row("snapshot", describeSnapshot(s))
	}
}

// encryption says what is sealed, and that the write buffer is not.
func encryption(s *control.Storage) string {
	if s.Key == 0 {
		return s.Cipher
	}
	return fmt.Sprintf("%s with master key %d, of what is stored; %s", s.Cipher, s.Key, host.BufferPlain)
}

func describeSnapshot(s control.SnapshotInfo) string {
	text := fmt.Sprintf("%s (%s, %s", s.Name, human(s.Size), when(s.Created))
	if s.Stored {
		text += ", stored"
	}
	if len(s.Children) > 0 {
		text += ", cloned as " + strings.Join(s.Children, ", ")
	}
	return text + ")"
}
