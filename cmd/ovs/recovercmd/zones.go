package recovercmd

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"openvstorage/internal/control"
)

// lower lowers the requirement of zones where the majority is, and gives up the hosts of the
// zones that are away.
func (cmd *command) lower(c *cobra.Command) error {
	client, err := cmd.Client()
	if err != nil {
		return err
	}
	shown, err := control.OfGroups(client).Lose(c.Context(), cmd.zones)
	if err != nil {
		return err
	}
	if asks, _ := c.Flags().GetBool("json"); !asks {
		writeLoss(c.OutOrStdout(), shown, cmd.zones)
	}
	if err := cmd.confirm(c, "The hosts that are given up must be off, and never run again as they are."); err != nil {
		return err
	}
	lost := []uuid.UUID{}
	for _, h := range shown.Hosts {
		lost = append(lost, h.ID)
	}
	done, err := control.OfGroups(client).AssertZones(c.Context(), cmd.zones, lost)
	if err != nil {
		return err
	}
	return cmd.Print(done, func(w io.Writer) {
		for _, g := range done.Groups {
			fmt.Fprintf(w, "%s\t%d zones are required, lowered from %d at revision %d\n", g.Group, max(g.Required, 1), g.From, g.Lowered)
		}
		for _, h := range done.Hosts {
			fmt.Fprintf(w, "host %s\tis given up; its members are made anew on other hosts\n", h.ID)
		}
	})
}

// writeLoss shows what a person is asked about.
func writeLoss(out io.Writer, l control.ArakoonLoss, zones int) {
	fmt.Fprintf(out, "not heard from: zone %s\nfrom now on %d zones must hold everything\n\ngiven up, and refused when they come back:\n", strings.Join(l.Zones, ", "), zones)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "HOST\tZONE\tADDRESSES\tMEMBERS\tNOTES")
	for _, h := range l.Hosts {
		notes := h.State
		if h.First {
			notes += ", THE FIRST HOST: the disks and the vDisks are on it, and go with it"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", h.ID, h.Zone, strings.Join(h.Addresses, ","), strings.Join(h.Members, ","), notes)
	}
	_ = w.Flush()
	if len(l.Hosts) == 0 {
		fmt.Fprintln(out, "none: they are given up already")
	}
	fmt.Fprintln(out)
}
