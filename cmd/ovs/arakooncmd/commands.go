// Package arakooncmd has the commands about Arakoon groups: `ovs arakoon`, `ovs backup`
// and `ovs restore`.
package arakooncmd

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"openvstorage/cmd/ovs/clustercmd"
	"openvstorage/internal/control"
)

// commands are all that this package has; the tools are those of the program.
type commands struct{ clustercmd.Tools }

// Commands returns `ovs arakoon`, `ovs backup` and `ovs restore`.
func Commands(t clustercmd.Tools) []*cobra.Command {
	cmds := commands{t}
	groups := t.Group("arakoon", "look at and change the Arakoon groups, which hold the metadata",
		cmds.status(), cmds.whoMaster(), cmds.dropMaster(), cmds.master(), cmds.hash(), cmds.level(), cmds.requireZones(), cmds.lease(),
		cmds.get(), cmds.exists(), cmds.scan(), cmds.revScan(), cmds.prefix(), cmds.count(), cmds.watch(),
		cmds.set(), cmds.confirm(), cmds.replace(), cmds.testAndSet(), cmds.delete(), cmds.deletePrefix(),
		cmds.backup(), cmds.verify(), cmds.restore(), cmds.dump())
	groups.Long = `ovs arakoon looks at the Arakoon groups that the running ovs up has members of, and
at the files of members that do not run.

Keys and values are text, or bytes in hex behind 0x. What begins with 0x is always
taken for hex.`
	return []*cobra.Command{
		groups, t.Group("backup", "back up what vDisks are made of", cmds.metadata()),
		t.Group("restore", "make what was lost anew of a backup", cmds.restoreMetadata()),
	}
}

// asks makes what a command runs of a function that asks `ovs up` about its groups.
func (cmds commands) asks(do func(c *cobra.Command, client *control.GroupsClient, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		client, err := cmds.Client()
		if err != nil {
			return err
		}
		return do(c, control.OfGroups(client), args)
	}
}

// parse reads a key or a value: text, or hex behind 0x.
func (cmds commands) parse(text string) ([]byte, error) {
	digits, ok := strings.CutPrefix(text, "0x")
	if !ok {
		return []byte(text), nil
	}
	b, err := hex.DecodeString(digits)
	if err != nil {
		return nil, cmds.Usage("%.80q begins with 0x and is not hex: give text that begins so in hex too", text)
	}
	return b, nil
}

// show writes a key or a value as parse reads it: as text if it is printable, otherwise in
// hex.
func show(b []byte) string {
	printable := utf8.Valid(b) && !strings.HasPrefix(string(b), "0x")
	for _, r := range string(b) {
		printable = printable && strconv.IsPrint(r)
	}
	if printable {
		return string(b)
	}
	return fmt.Sprintf("0x%x", b)
}

// pair is a key and its value as --json prints them.
type pair struct {
	Key   string  `json:"key"`
	Value *string `json:"value,omitempty"` // absent: not asked for
}

// groupsOnly completes the first argument with the names of the groups.
func (cmds commands) groupsOnly(c *cobra.Command, args []string, _ string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	client, err := cmds.Client()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := clustercmd.CompletionContext(c)
	defer cancel()
	list, _ := control.OfGroups(client).Groups(ctx, "") // none is offered without it
	for _, g := range list {
		names = append(names, g.Group)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
