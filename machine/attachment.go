package machine

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// attachmentFile is what a Machine's directory says about the device of a Machine
// that something else runs. It is written before anything is done to the device.
const attachmentFile = "attachment.json"

type attachment struct {
	Instance string       `json:"instance"` // of the record
	Attempt  int          `json:"attempt"`  // of the restart policy
	Addr     netip.Addr   `json:"addr"`     // of the Machine
	Attach   state.Attach `json:"attach"`
	BootID   string       `json:"boot_id"` // devices of another boot are gone, whatever now has their number
	Device   Device       `json:"device"`
	Made     bool         `json:"made"` // the device is a veth made for this
	Up       bool         `json:"up"`   // it is a port
}

func (d *Driver) attachmentPath(id string) string {
	return filepath.Join(d.directory(id), attachmentFile)
}

// readAttachment returns an error that is os.ErrNotExist when there is none.
func readAttachment(dir string) (a attachment, err error) {
	err = readJSON(filepath.Join(dir, attachmentFile), &a)
	return a, err
}

func (d *Driver) writeAttachment(id string, a attachment) error {
	if err := os.MkdirAll(d.directory(id), 0o700); err != nil {
		return err
	}
	return errors.Join(writeJSON(d.attachmentPath(id), a), syncDirectory(d.config.Dir))
}

// removeAttachment leaves nothing of the Machine, but what an earlier run of it as a
// process has left.
func (d *Driver) removeAttachment(id string) error {
	err := os.Remove(d.attachmentPath(id))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if os.Remove(d.directory(id)) != nil { // it is not empty
		return syncDirectory(d.directory(id))
	}
	return syncDirectory(d.config.Dir)
}

// present says whether the device that was attached is there still.
func (a attachment) present() bool {
	boot, err := BootID()
	if err != nil || boot != a.BootID {
		return false
	}
	link, err := netlink.LinkByIndex(int(a.Device.Ifindex))
	return err == nil && link.Attrs().Name == a.Device.Name
}

func (a attachment) port(id string) Port { return portOf(id, a.Addr, a.Device) }

// Attachments lists the Machines that have an attached device, or had when an agent
// ended in the midst of it.
func (d *Driver) Attachments() (ids []string, err error) {
	entries, err := os.ReadDir(d.config.Dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if _, err := os.Stat(d.attachmentPath(e.Name())); err == nil && idPattern.MatchString(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Device finds the device of a Machine: the attached one, else that of its process.
// The error wraps os.ErrNotExist if there is none.
func (d *Driver) Device(id string) (Device, error) {
	a, err := readAttachment(d.directory(id))
	if err == nil && a.present() {
		return a.Device, nil
	}
	return FindVeth(id)
}

// LeftPorts are the ports of the Machines under dir, a driver's Dir, as far as their
// devices exist: with the addresses that their present runs were given, which a
// record that asks for another run may not have any more.
func LeftPorts(dir string) (ports []Port, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		id := e.Name()
		if !idPattern.MatchString(id) {
			continue
		}
		if a, err := readAttachment(filepath.Join(dir, id)); err == nil {
			if a.Up && a.present() {
				ports = append(ports, a.port(id))
			}
			continue
		}
		r, err := readRecord(filepath.Join(dir, id))
		if err != nil {
			continue // nothing was ever started
		}
		if device, err := FindVeth(id); err == nil {
			ports = append(ports, portOf(id, r.Spec.Addr, device))
		}
	}
	return ports, nil
}

// portOf is a Machine's port.
func portOf(id string, addr netip.Addr, d Device) Port {
	f, _ := sixpn.Parse(addr)
	return Port{
		MachineID: id, Device: d.Name, Ifindex: d.Ifindex,
		Network: f.Network, Host: f.Host, Number: f.Machine,
		MTU: d.MTU, GuestMAC: d.GuestMAC, RouterMAC: d.RouterMAC, Peer: d.Peer,
	}
}
