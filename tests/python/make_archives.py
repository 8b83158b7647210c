"""Makes session archives of all dialects, and says what tarfile finds in them.

usage: make_archives.py FOLDER CORPUS_ARCHIVE

Prints JSON: for each archive its path, the session root within it, the
session's name, and its files (path below the root in hex: offset, size) and
folders (paths in hex). Python's tarfile tells places and names; where
"channels" is given, mef3io opened the archive and tells name and channels.
There are also archives to be refused, and headers of one too large to make.
"""

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile

FORMATS = {
    "ustar": tarfile.USTAR_FORMAT,
    "gnu": tarfile.GNU_FORMAT,
    "pax": tarfile.PAX_FORMAT,
}
SHORT = ["S.rdat", "S.ridx", "a.timd/a-000000.segd/a-000000.tmet",
         "a.timd/a-000000.segd/a-000000.tdat", "a.timd/a.rdat", "a.timd-old/x"]
OVER_100 = ["k" * 60 + ".timd/" + "k" * 60 + "-000000.segd/" + "k" * 60 + "-000000.tmet"]
# No slash divides this into prefix and name.
OVER_255 = ["l" * 200 + ".timd/" + "l" * 200 + "-000000.segd/" + "l" * 200 + "-000000.tdat"]
UNICODE = ["naïve Ł 日本.timd/naïve Ł 日本-000000.segd/naïve Ł 日本-000000.tmet", "😀.rdat"]
# A name in Latin-1, which is no UTF-8.
LATIN = [os.fsdecode(b"\xe9t\xe9.timd/\xe9t\xe9.rdat")]


def body(name, index):
    return (os.fsencode(name) + b" %d " % index) * (index * 37 % 50)


def add(archive, name, data=b"", kind=tarfile.REGTYPE, **fields):
    member = tarfile.TarInfo(name)
    member.size, member.type = len(data), kind
    for field, value in fields.items():
        setattr(member, field, value)
    archive.addfile(member, io.BytesIO(data) if data else None)


def parents(name):
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def truth(path, root, session):
    """What the archive holds below the root, by tarfile."""
    files, folders = {}, set()
    with tarfile.open(path) as archive:
        for member in archive:
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            if root is not None and parts[:1] == [root]:
                parts = parts[1:]
            elif root is not None:
                continue
            name = "/".join(parts)
            if not name or not (member.isdir() or member.isreg()):
                continue
            folders.update(parents(name))
            if member.isdir():
                folders.add(name)
            else:
                files[name] = [member.offset_data, member.size]
    code = lambda name: os.fsencode(name).hex()
    return {"path": path, "session": code(session),
            "files": {code(name): place for name, place in files.items()},
            "folders": sorted(code(name) for name in folders)}


def dialects(folder):
    for dialect, format in FORMATS.items():
        names = SHORT + OVER_100 + UNICODE + LATIN + (OVER_255 if dialect != "ustar" else [])
        # In the GNU format this takes a member of its own.
        far = "x" * (100 if dialect == "ustar" else 150)

        def make(stem, root, fill):
            path = os.path.join(folder, f"{dialect} {stem}.mefd.tar")
            with tarfile.open(path, "w", format=format) as archive:
                fill(archive)
            stem = root.removesuffix(".mefd") if root else f"{dialect} {stem}"
            return truth(path, root, stem)

        def plain(prefix, folders=False, chosen=names, **fields):
            def fill(archive):
                known = set()
                for index, name in enumerate(chosen):
                    for above in parents(prefix + name) if folders else []:
                        if above not in known:
                            add(archive, above, kind=tarfile.DIRTYPE, **fields)
                            known.add(above)
                    add(archive, prefix + name, body(name, index), **fields)
            return fill

        def several(*fills):
            return lambda archive: [fill(archive) for fill in fills]

        yield make("with folders", "S.mefd", plain("S.mefd/", folders=True))
        yield make("without folders", "S.mefd", plain("S.mefd/"))
        yield make("times in fractions", "S.mefd", plain("S.mefd/", mtime=1600000000.25))
        yield make("with a dot", "S.mefd", plain("./S.mefd/", folders=True))
        yield make("absolute", "S.mefd", plain("/S.mefd/"))
        yield make("without root", None, plain("", folders=True))
        yield make("root is a dot", None, plain("./", folders=True))
        yield make("only a channel", None, plain("X.timd/", chosen=SHORT))
        yield make("root of another name", "Session 1.5", plain("Session 1.5/"))
        # Longer and shorter later members replace earlier ones.
        yield make("replaced", "S.mefd", several(
            plain("S.mefd/"), lambda archive: add(archive, "S.mefd/S.rdat", b"later" * 500),
            lambda archive: add(archive, "S.mefd/a.timd/a.rdat", b"")))
        yield make("links and devices", "S.mefd", several(
            plain("S.mefd/", chosen=SHORT[:3]),
            lambda archive: add(archive, "S.mefd/hard", kind=tarfile.LNKTYPE, linkname=far),
            lambda archive: add(archive, "top", kind=tarfile.SYMTYPE, linkname="../S.rdat"),
            lambda archive: add(archive, "../fifo", kind=tarfile.FIFOTYPE),
            lambda archive: add(archive, "S.mefd/null", kind=tarfile.CHRTYPE),
            plain("S.mefd/", chosen=SHORT[3:])))
        yield make("contiguous", "S.mefd", lambda archive: add(
            archive, "S.mefd/S.rdat", b"type 7", kind=tarfile.CONTTYPE))
    path = os.path.join(folder, "global records.mefd.tar")
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT,
                      pax_headers={"comment": "none of ours"}) as archive:
        add(archive, "S.mefd/S.rdat", b"x", pax_headers={"LIBARCHIVE.creationtime": "17"})
    yield truth(path, "S.mefd", "S")


def system_tar(folder):
    """Archives by the system's tar."""
    tree = os.path.join(folder, "tree")
    for dialect in ("ustar", "oldgnu", "gnu", "posix"):
        names = SHORT + OVER_100 + UNICODE + LATIN
        if dialect != "ustar":
            names = names + [name for name in OVER_255]
        for index, name in enumerate(names):
            place = os.path.join(tree, "T.mefd", name)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "wb") as file:
                file.write(body(name, index))
        if dialect == "ustar":
            os.symlink("S.rdat", os.path.join(tree, "T.mefd", "link"))

        def run(stem, *arguments):
            path = os.path.join(folder, f"tar {dialect} {stem}.mefd.tar")
            command = ["tar", f"--format={dialect}", "-cf", path, *arguments]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
            return path

        yield truth(run("root", "-C", tree, "T.mefd"), "T.mefd", "T")
        yield truth(run("dot root", "-C", tree, "./T.mefd"), "T.mefd", "T")
        yield truth(run("no root", "-C", os.path.join(tree, "T.mefd"), "."), None,
                    f"tar {dialect} no root")
        path = run("appended", "-C", tree, "T.mefd")
        with open(os.path.join(tree, "T.mefd", "S.rdat"), "wb") as file:
            file.write(b"later" * 700)
        subprocess.run(["tar", f"--format={dialect}", "-rf", path, "-C", tree, "T.mefd/S.rdat"],
                       check=True)
        yield truth(path, "T.mefd", "T")


def roots(folder, corpus):
    """Where mef3io finds the session in an archive."""
    import mef3io

    with tarfile.open(corpus) as archive:
        session = [(member.name.split("/", 1)[1], archive.extractfile(member).read())
                   for member in archive if member.isfile()]
    one_channel = [(name, data) for name, data in session if name.startswith("t1.timd/")]
    for stem, prefix, content, more in [
        ("own name", "Other.mefd/", session, None),
        ("dotted root", "pat.01/", session, None),
        ("capital root", "P.MEFD/", session, None),
        ("no root", "", session, None),
        ("only a channel", "", one_channel, None),
        ("file at the top", "S.mefd/", session, ("readme", tarfile.REGTYPE)),
        ("empty folder at the top", "S.mefd/", session, ("other", tarfile.DIRTYPE)),
        ("nested", "X/S.mefd/", session, None),
    ]:
        path = os.path.join(folder, f"{stem}.MEFD.tar")
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            for name, data in content:
                add(archive, prefix + name, data)
            if more:
                add(archive, more[0], kind=more[1])
        yield {"path": path, "session": mef3io.inspect(path).name,
               "channels": sorted(mef3io.Reader(path).channels)}


def refused(folder, corpus):
    """Archives that cannot be read in place, by the reason."""
    tree = os.path.join(folder, "sparse")
    os.makedirs(os.path.join(tree, "S.mefd"))
    with open(os.path.join(tree, "S.mefd", "S.rdat"), "wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"an island")
    for dialect, options in (
        ("sparse", ["--format=gnu"]),
        ("sparse", ["--format=posix", "--sparse-version=0.0"]),
        ("sparse", ["--format=posix", "--sparse-version=0.1"]),
        ("sparse", ["--format=posix", "--sparse-version=1.0"]),
        ("not tar", ["--format=v7"]),
    ):
        path = os.path.join(folder, f"{dialect} {options[-1]}.mefd.tar")
        if dialect == "sparse":
            options = ["--sparse", "--hole-detection=raw", *options]
        subprocess.run(["tar", *options, "-cf", path, "-C", tree, "S.mefd"], check=True)
        yield {"path": path, "reason": dialect}
    for compression, module in (("gzip", gzip), ("bzip2", bz2), ("xz", lzma)):
        path = os.path.join(folder, f"{compression}.mefd.tar")
        with open(corpus, "rb") as plain, module.open(path, "wb") as compressed:
            compressed.write(plain.read())
        yield {"path": path, "reason": compression}


def huge():
    """Headers of a member that no octal size field can hold, and of one after it."""
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        member, after = tarfile.TarInfo("S.mefd/huge"), tarfile.TarInfo("S.mefd/after")
        member.size, after.size = 9 << 30, 3
        yield {"header": member.tobuf(format).hex(), "size": member.size,
               "after": after.tobuf(format).hex()}


def main():
    folder, corpus = sys.argv[1:]
    print(json.dumps({
        "listed": [truth(corpus, "tar_archive.mefd", "tar_archive"),
                   *dialects(folder), *system_tar(folder)],
        "huge": list(huge()),
        "roots": list(roots(folder, corpus)),
        "refused": list(refused(folder, corpus)),
    }))


if __name__ == "__main__":
    main()
