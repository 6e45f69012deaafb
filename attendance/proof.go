package attendance

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"firstbell/attendance/seal"
)

// Proof shows that a record of the journal was sealed: with it and the public
// key anybody can check the receipt, offline and for ever.
type Proof struct {
	Position uint64 // of the record in the journal
	Record   []byte // as the journal holds it: event.go draws it
	Index    uint64 // of the record among the seal's
	Path     []seal.Hash
	Seal     seal.Seal
}

// ErrNoProof says that the journal does not hold the record, or does not hold
// all of its batch, or holds it without a seal.
var ErrNoProof = errors.New("the journal has no proof of it")

// sealReach is how many records a seal covers at most, and how many counts of
// presses may lie around them.
const sealReach = DefaultMaxBatch + RecordMax

// Prove finds the proof of the record at a position. It reads the journal from
// the segment that holds it. The error wraps ErrNoProof when there is none.
func Prove(journal Journal, position uint64) (*Proof, error) {
	p := &Proof{Position: position}
	var tree seal.Tree
	var first uint64 // position of the tree's first leaf
	for rec, err := range journal(max(position, sealReach) - sealReach) {
		if err != nil {
			return nil, fmt.Errorf("proving record %d: %w", position, err)
		}
		switch {
		case rec.Seq > position && p.Record == nil || rec.Seq > position+sealReach:
			return nil, fmt.Errorf("proving record %d: %w", position, ErrNoProof)
		case rec.Seq == position:
			p.Record = bytes.Clone(rec.Data)
		case len(rec.Data) > 0 && Kind(rec.Data[0]) == KindSeal:
			if rec.Seq < position {
				tree.Reset()
				continue
			}
			return p, p.close(&tree, first, rec)
		}
		if tree.Len() == 0 || rec.Seq != first+uint64(tree.Len()) {
			tree.Reset()
			first = rec.Seq
		}
		tree.Add(rec.Data)
	}
	return nil, fmt.Errorf("proving record %d: %w", position, ErrNoProof)
}

// close takes the seal that follows the record. tree holds what lies directly
// before it.
func (p *Proof) close(tree *seal.Tree, first uint64, rec Record) error {
	e, err := DecodeEvent(rec.Data)
	if err != nil {
		return fmt.Errorf("proving record %d: %w", p.Position, err)
	}
	begin := rec.Seq - uint64(e.Seal.Leaves)
	if p.Position < begin || first > begin || first+uint64(tree.Len()) != rec.Seq {
		return fmt.Errorf("proving record %d: %w", p.Position, ErrNoProof)
	}
	if begin > first {
		tree.DropFirst(int(begin - first)) // what lies before was written without a seal
	}
	p.Seal, p.Index = *e.Seal, p.Position-begin
	p.Path = tree.Path(int(p.Index))
	if tree.Root() != p.Seal.Root {
		return fmt.Errorf("proving record %d: the seal at %d is not that of the records before it: %w", p.Position, rec.Seq, ErrNoProof)
	}
	return nil
}

// proofJSON are the names of a proof on the wire. Hashes are hexadecimal,
// record and signature base64.
type proofJSON struct {
	Record    string   `json:"record"`
	Position  uint64   `json:"position"`
	Index     uint64   `json:"index"`
	Leaves    uint32   `json:"leaves"`
	Path      []string `json:"path"`
	Root      string   `json:"root"`
	Key       string   `json:"key"`
	Signature string   `json:"signature"`
}

type correctionJSON struct {
	Made      string `json:"made"` // RFC 3339
	OldPeriod string `json:"old_period"`
	OldStatus string `json:"old_status"`
	Author    string `json:"author"`
	Reason    string `json:"reason"`
}

// signedJSON is a receipt that can be checked.
type signedJSON struct {
	Receipt    json.RawMessage `json:"receipt"` // as the check-in's answer
	Correction *correctionJSON `json:"correction,omitempty"`
	Proof      *proofJSON      `json:"proof"`
}

// MarshalJSON writes the receipt that the record stands for, and its proof.
func (p *Proof) MarshalJSON() ([]byte, error) {
	e, err := DecodeEvent(p.Record)
	if err != nil {
		return nil, err
	}
	out := signedJSON{Receipt: e.Receipt.AppendJSON(nil), Correction: correctionOf(&e), Proof: &proofJSON{
		Record: base64.StdEncoding.EncodeToString(p.Record), Position: p.Position, Index: p.Index, Leaves: p.Seal.Leaves, Path: []string{},
		Root: hex.EncodeToString(p.Seal.Root[:]), Key: p.Seal.Key.String(), Signature: base64.StdEncoding.EncodeToString(p.Seal.Signature[:]),
	}}
	for _, h := range p.Path {
		out.Proof.Path = append(out.Proof.Path, hex.EncodeToString(h[:]))
	}
	return json.Marshal(out)
}

func correctionOf(e *Event) *correctionJSON {
	c := e.Correction
	if c == nil {
		return nil
	}
	return &correctionJSON{Made: e.RawArrival.Format(time.RFC3339Nano), OldPeriod: c.OldPeriod, OldStatus: string(c.OldStatus), Author: c.Author, Reason: c.Reason}
}

// proof reads what MarshalJSON writes.
func (j *proofJSON) proof() (*Proof, error) {
	p := &Proof{Position: j.Position, Index: j.Index, Seal: seal.Seal{Leaves: j.Leaves}}
	var err error
	if p.Record, err = base64.StdEncoding.DecodeString(j.Record); err != nil {
		return nil, fmt.Errorf("its proof's record is no base64: %w", err)
	}
	if p.Seal.Key, err = seal.ParseKeyID(j.Key); err != nil {
		return nil, err
	}
	signature, err := base64.StdEncoding.DecodeString(j.Signature)
	if err != nil || len(signature) != seal.SignatureBytes {
		return nil, errors.New("its proof's signature is not 64 bytes in base64")
	}
	copy(p.Seal.Signature[:], signature)
	if len(j.Path) > seal.PathMax {
		return nil, fmt.Errorf("its proof's path has %d hashes, at most %d", len(j.Path), seal.PathMax)
	}
	if p.Seal.Root, err = parseHash(j.Root); err != nil {
		return nil, err
	}
	for _, text := range j.Path {
		h, err := parseHash(text)
		if err != nil {
			return nil, err
		}
		p.Path = append(p.Path, h)
	}
	return p, nil
}

func parseHash(s string) (seal.Hash, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(seal.Hash{}) {
		return seal.Hash{}, fmt.Errorf("its proof has the hash %.70q, want 64 hexadecimal digits", s)
	}
	return seal.Hash(b), nil
}

// CheckReceipt checks a receipt with its proof, as the server hands it out, with
// public keys alone. It returns the record that is proved and the key that
// sealed it. An error says what does not hold: then nothing is proved.
func CheckReceipt(text []byte, keys []PublicKey) (Event, PublicKey, error) {
	in, err := readSigned(text)
	if err != nil {
		return Event{}, PublicKey{}, err
	}
	if in.Proof == nil {
		return Event{}, PublicKey{}, errors.New("it has no proof; ask for it with GET at the check-in's path, then /receipts/ and the receipt's id")
	}
	p, err := in.Proof.proof()
	if err != nil {
		return Event{}, PublicKey{}, err
	}
	key, ok := keyOf(keys, p.Seal.Key)
	if !ok {
		return Event{}, PublicKey{}, fmt.Errorf("it was sealed with key %s, which is not among the %d given", p.Seal.Key, len(keys))
	}
	if !p.Seal.Genuine(key.Key) {
		return Event{}, key, fmt.Errorf("its signature is not that of key %s", key.ID)
	}
	if !p.Seal.Verify(key.Key, p.Record, p.Index, p.Path) {
		return Event{}, key, errors.New("its record is not among those that were sealed: record, place or path was changed")
	}
	e, err := DecodeEvent(p.Record)
	if err != nil {
		return Event{}, key, fmt.Errorf("its record was sealed and cannot be read; use a newer firstbell: %w", err)
	}
	if _, ok := RowOf(&e); !ok {
		return Event{}, key, fmt.Errorf("its record was sealed and is no check-in (kind %d)", e.Kind)
	}
	return e, key, sameAsShown(in, &e)
}

func keyOf(keys []PublicKey, id seal.KeyID) (PublicKey, bool) {
	for _, k := range keys {
		if k.ID == id {
			return k, true
		}
	}
	return PublicKey{}, false
}

// readSigned reads what MarshalJSON writes, and refuses what two readers could
// take for two things.
func readSigned(text []byte) (*signedJSON, error) {
	all, err := members(text)
	if err != nil {
		return nil, err
	}
	var in signedJSON
	for name, value := range all {
		switch name {
		case "receipt":
			in.Receipt = value
		case "correction":
			err = json.Unmarshal(value, &in.Correction)
		case "proof":
			err = json.Unmarshal(value, &in.Proof)
		default:
			if in.Proof == nil && all["proof"] == nil {
				return &in, nil // a bare receipt: what is missing is said first
			}
			err = errors.New("no proved receipt has such a member")
		}
		if err != nil {
			return nil, fmt.Errorf("its member %q cannot be read: %w", name, err)
		}
	}
	return &in, nil
}

// members reads a JSON object. A name that is there twice is refused.
func members(text []byte) (map[string]json.RawMessage, error) {
	in := json.NewDecoder(bytes.NewReader(text))
	if t, err := in.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("it is no JSON object")
	}
	all := map[string]json.RawMessage{}
	for in.More() {
		t, err := in.Token()
		if err != nil {
			return nil, fmt.Errorf("it is no JSON: %w", err)
		}
		name := t.(string) // the decoder lets nothing else stand here
		if _, twice := all[name]; twice {
			return nil, fmt.Errorf("it says %q twice", name)
		}
		var value json.RawMessage
		if err := in.Decode(&value); err != nil {
			return nil, fmt.Errorf("it is no JSON: %w", err)
		}
		all[name] = value
	}
	if _, err := in.Token(); err != nil {
		return nil, fmt.Errorf("it is no JSON: %w", err)
	}
	if in.More() {
		return nil, errors.New("something follows it")
	}
	return all, nil
}

// sameAsShown wants the receipt to say what its record says, name by name.
func sameAsShown(in *signedJSON, e *Event) error {
	shown, err := members(in.Receipt)
	if err != nil {
		return fmt.Errorf("its receipt: %w", err)
	}
	sealed, err := members(e.Receipt.AppendJSON(nil))
	if err != nil {
		return err
	}
	for name, value := range shown {
		want, known := sealed[name]
		if !known {
			return fmt.Errorf("its receipt says %s, which no receipt has", name)
		}
		var a, b any
		if json.Unmarshal(value, &a) != nil || json.Unmarshal(want, &b) != nil || !reflect.DeepEqual(a, b) {
			return fmt.Errorf("its receipt says %s %s, sealed was %s", name, value, want)
		}
	}
	for name := range sealed {
		if _, there := shown[name]; !there {
			return fmt.Errorf("its receipt does not say %s", name)
		}
	}
	if want := correctionOf(e); !reflect.DeepEqual(in.Correction, want) {
		return errors.New("what it says of a correction is not what was sealed")
	}
	return nil
}
