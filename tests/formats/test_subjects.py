"""Generated data sets that hold every trap of their layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from equivox.errors import InputError
from equivox.formats.subjects import Subject, date_of, layout_of, read_subject_table, read_subjects


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def table(path: Path, *lines: str, separator: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(line.replace("|", separator) for line in lines) + "\n", encoding="utf-8")


def by_name(subjects: list[Subject]) -> dict[str, Subject]:
    return {subject.name: subject for subject in subjects}


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    root = tmp_path / "bids"
    table(
        root / "participants.tsv",
        "participant_id|age|sex|diagnosis",
        "sub-01|71,5|male|AD",  # decimal comma
        "sub-02|89+|F|CN",  # capped
        "03|30|m|CN",  # no prefix
        "sub-04|n/a|f|n/a",
        "sub-05|44|F|CN",  # no folder
        "sub-07|250|F|CN",  # months?
        separator="\t",
    )
    touch(root, "sub-01/anat/sub-01_run-2_T1w.nii.gz", "sub-01/anat/sub-01_run-1_T1w.nii.gz")
    touch(root, "sub-02/anat/sub-02_T1w.nii.gz", "sub-04/anat/sub-04_T1w.nii", "sub-07/anat/sub-07_T1w.nii.gz")
    touch(root, "sub-06/anat/sub-06_T2w.nii.gz", "sub-08/anat/sub-08_T1w.nii.gz")
    # sub-03: sessions whose order in the table is not that of time, one with its own age
    for session in ("a", "b", "c"):
        touch(root, f"sub-03/ses-{session}/anat/sub-03_ses-{session}_T1w.nii.gz")
    table(
        root / "sub-03" / "sub-03_sessions.tsv",
        "session_id|acq_time|age",
        "ses-a|2012-06-30T10:00:00|n/a",
        "ses-b|2010-07-01T10:00:00|n/a",
        "ses-c|2011-07-01T10:00:00|31.25",
        separator="\t",
    )
    touch(
        root,
        "derivatives/tool/sub-01/anat/sub-01_desc-brain_mask.nii.gz",
        "derivatives/tool/sub-02/anat/sub-02_space-MNI152_desc-brain_mask.nii.gz",
    )
    return root


def test_bids_with_its_traps(bids: Path) -> None:
    found = read_subject_table(bids)
    people = by_name(list(found.subjects))
    assert found.layout == "bids"
    assert list(people) == [
        "sub-01", "sub-02", "sub-03 ses-b", "sub-03 ses-c", "sub-03 ses-a", "sub-04", "sub-07", "sub-08",
    ]  # fmt: skip
    first = people["sub-01"]
    assert (first.age, first.sex, first.diagnosis) == (71.5, "M", "AD")
    assert first.path is not None
    assert first.path.name == "sub-01_run-1_T1w.nii.gz"
    assert first.mask is not None
    assert people["sub-02"].age is None
    assert people["sub-02"].mask is None  # lies in a template's space
    assert people["sub-03 ses-b"].age == 30.0
    assert people["sub-03 ses-c"].age == 31.25
    assert people["sub-03 ses-a"].age == pytest.approx(30 + 730 / 365.25)
    assert {people[f"sub-03 ses-{s}"].group for s in "abc"} == {"sub-03"}
    assert people["sub-07"].age is None
    told = "\n".join(found.notes)
    for words in ("sub-02 has the age '89+', which is a capped age", "sub-07 has the age 250", "sub-04 has no age",
                  "sub-08 is not in participants.tsv", "sub-01 has 2 T1w scans; sub-01_run-1"):  # fmt: skip
        assert words in told
    assert dict(found.skipped).keys() == {"sub-05", "sub-06"}


def test_a_day_in_scans_tsv_serves_too(bids: Path) -> None:
    (bids / "sub-03" / "sub-03_sessions.tsv").unlink()
    for session, day in (("a", "2012-07-01"), ("b", "2010-07-01"), ("c", "2011-07-01")):
        table(
            bids / f"sub-03/ses-{session}/sub-03_ses-{session}_scans.tsv",
            "filename|acq_time",
            f"anat/sub-03_ses-{session}_T1w.nii.gz|{day}",
            separator="\t",
        )
    people = by_name(read_subjects(bids))
    assert people["sub-03 ses-c"].age == pytest.approx(30 + 365 / 365.25)


@pytest.mark.parametrize("twice", ["sub-01", "01"])
def test_a_participant_that_stands_twice_is_refused(bids: Path, twice: str) -> None:
    with (bids / "participants.tsv").open("a") as file:
        file.write(f"{twice}\t70\tM\tAD\n")
    with pytest.raises(InputError, match=r"participants.tsv, line 8.*sub-01 stood already|= sub-01 stood already"):
        read_subjects(bids)


@pytest.fixture
def adni(tmp_path: Path) -> Path:
    root = tmp_path / "adni"
    table(
        root / "ADNIMERGE_12Mar2024.csv",
        "RID|PTID|VISCODE|SITE|EXAMDATE|DX_bl|AGE|PTGENDER|DX|Years_bl|Month_bl|M",
        # visits out of order; an MCI who progresses; an empty DX; AGE at baseline on every row
        "2|011_S_0002|m12|11|2006-09-12|LMCI|74.3|Male|MCI|1.0|12|12",
        "2|011_S_0002|bl|11|2005-09-08|LMCI|74.3|Male|MCI|0|0|0",
        "2|011_S_0002|m24|11|2007-09-10|LMCI|74.3|Male||2.0|24|24",
        "2|011_S_0002|m36|11|2008-09-09|LMCI|74.3|Male|Dementia|3.0|36|36",
        "3|022_S_1003|bl|22|2010-01-10|SMC|65|Female||0|0|0",  # only DX_bl
        "4|022_S_1004|m06|22|2010-07-12|CN|80.5|Female|CN|0.5|6|6",  # no bl row
        "5|099_S_0005|bl|99|2010-01-10|EMCI|70|Female|MCI|0|0|0",
        "5|099_S_0005|m30|99|2012-08-10|EMCI|70|Female|MCI|2.58|31|30",
        "6|099_S_0006|bl|99|2010-01-10|LMCI|70|Female|MCI|0|0|0",
        "6|099_S_0006|m24|99|2012-01-10|LMCI|70|Female|CN|2|24|24",  # a reverter
        "7|099_S_0007|bl|99|2010-01-10|AD|-4|Female|Dementia|0|0|0",  # age missing
    )
    touch(
        root,
        "img/011_S_0002-2005-09-20_T1.nii.gz",
        "img/011_S_0002-2007-09-10_T1.nii.gz",
        "ADNI/022_S_1003/MP-RAGE/2010-01-15_08_31_44.0/I7000/ADNI_022_S_1003_MR_MPRAGE_Br_20100120153000_S1_I7000.nii",
        "img/022_S_1004-2010-07-12_T1.nii.gz",
        "img/099_S_0005-2010-01-10_T1.nii.gz",
        "img/099_S_0006-2010-01-10_T1.nii.gz",
        "img/099_S_0007-2010-01-10_T1.nii.gz",
        "img/123_S_4567-2010-01-10_T1.nii.gz",  # not in the table
        "img/011_S_0002_T1.nii.gz",  # no day
        "img/nobody.nii.gz",
        "img/011_S_0002-2005-09-20_T1_mask.nii.gz",
    )
    return root


def test_adni_with_its_traps(adni: Path) -> None:
    found = read_subject_table(adni)
    people = by_name(list(found.subjects))
    assert found.layout == "adni"
    late = people["011_S_0002 2007-09-10"]
    assert late.age == pytest.approx(74.3 + 732 / 365.25)  # not 74.3: AGE is the age at baseline
    assert late.diagnosis == "MCI"  # empty DX at m24: carried forward from m12, not back from m36
    assert late.values["progression"] == "pMCI"
    assert people["011_S_0002 2005-09-20"].diagnosis == "MCI"
    assert people["011_S_0002 2005-09-20"].values["progression"] == "pMCI"  # turned 2.97 years later
    concern = people["022_S_1003 2010-01-15"]
    assert (concern.diagnosis, concern.values["DX_bl"], concern.sex) == ("CN", "SMC", "F")
    assert people["022_S_1004 2010-07-12"].age == pytest.approx(80.5 + 0.5, abs=0.01)
    assert people["099_S_0005 2010-01-10"].values["progression"] == "sMCI"
    assert people["099_S_0006 2010-01-10"].values["progression"] == ""
    assert people["099_S_0007 2010-01-10"].age is None
    told = "\n".join(found.notes)
    assert "AGE (at baseline)" in told
    assert "022_S_1004 has no dated visit bl" in told
    assert "099_S_0007 2010-01-10 has no age" in told
    reasons = dict(found.skipped)
    assert "not in the table" in reasons["123_S_4567-2010-01-10_T1.nii.gz"]
    assert "no day" in reasons["011_S_0002_T1.nii.gz"]
    assert "no ADNI identifier" in reasons["nobody.nii.gz"]


def test_adni_in_its_newer_tables(tmp_path: Path) -> None:
    root = tmp_path / "adni"
    table(root / "PTDEMOG.csv", "RID|PTID|PTGENDER|PTDOB", "2|011_S_0002|1|06/1931", "3|022_S_1003|2|1945")
    table(
        root / "DXSUM.csv",
        "RID|PTID|VISCODE|EXAMDATE|DIAGNOSIS",
        "2|011_S_0002|bl|2005-09-08|2",
        "2|011_S_0002|m12|9/12/2006|3.0",
    )
    touch(root, "011_S_0002-2006-09-20.nii.gz")
    subject = read_subjects(root)[0]
    assert subject.age == pytest.approx(75.27, abs=0.02)
    assert (subject.sex, subject.diagnosis) == ("M", "AD")


def test_adni_refuses_a_visit_that_stands_twice(adni: Path) -> None:
    with (adni / "ADNIMERGE_12Mar2024.csv").open("a") as file:
        file.write("2,011_S_0002,bl,11,2005-09-08,LMCI,74.3,Male,MCI,0,0,0\n")
    with pytest.raises(InputError, match="011_S_0002 has the visit bl twice"):
        read_subjects(adni)


def test_oasis_1_repeats_and_empty_ratings(tmp_path: Path) -> None:
    root = tmp_path / "oasis"
    table(
        root / "oasis_cross-sectional.csv",
        "ID|M/F|Hand|Age|Educ|SES|MMSE|CDR|eTIV|nWBV|ASF|Delay",
        "OAS1_0001_MR1|F|R|74|2|3|29|0|1344|0.743|1.306|N/A",
        "OAS1_0002_MR1|F|R|55|4|1|29||1147|0.810|1.531|N/A",  # young, no CDR: a control
        "OAS1_0003_MR1|M|R|73|4|3|27||1454|0.708|1.207|N/A",  # old, no CDR: unknown
        "OAS1_0004_MR1|M|R|80|4|3|20|1|1454|0.708|1.207|N/A",
        "OAS1_0061_MR1|F|R|20|4|3|||1454|0.8|1.2|N/A",
        "OAS1_0061_MR2|F|R||4|3|||1454|0.8|1.2|40",  # repeat, no age of its own
        "OAS1_0099_MR1|F|R|33|4|3|||1454|0.8|1.2|N/A",
    )
    for name in ("0001_MR1", "0002_MR1", "0003_MR1", "0004_MR1", "0061_MR1", "0061_MR2"):
        touch(
            root,
            f"disc1/OAS1_{name}/OAS1_{name}_mpr_n4_anon_111_t88_masked_gfc.nii.gz",
            f"disc1/OAS1_{name}/raw.nii.gz",
        )
    found = read_subject_table(root)
    people = by_name(list(found.subjects))
    assert found.layout == "oasis1"
    assert {name: subject.diagnosis for name, subject in people.items()} == {
        "OAS1_0001 MR1": "CN", "OAS1_0002 MR1": "CN", "OAS1_0003 MR1": "", "OAS1_0004 MR1": "AD",
        "OAS1_0061 MR1": "CN", "OAS1_0061 MR2": "CN",
    }  # fmt: skip
    assert people["OAS1_0061 MR2"].group == people["OAS1_0061 MR1"].group == "OAS1_0061"
    assert people["OAS1_0061 MR2"].age == pytest.approx(20 + 40 / 365.25)
    assert "masked" in str(people["OAS1_0001 MR1"].path)
    assert "only those below 60 years" in found.notes[0]
    assert found.skipped == (("OAS1_0099_MR1", f"has no scan in {root}"),)


def test_oasis_2_orders_visits_by_delay(tmp_path: Path) -> None:
    root = tmp_path / "oasis2"
    table(
        root / "oasis_longitudinal.csv",
        "Subject ID|MRI ID|Group|Visit|MR Delay|M/F|Hand|Age|EDUC|SES|MMSE|CDR|eTIV|nWBV|ASF",
        "OAS2_0018|OAS2_0018_MR3|Converted|3|489|F|R|88|14|2|29|0.5|1216|0.7|1.4",
        "OAS2_0018|OAS2_0018_MR1|Converted|1|0|F|R|87|14|2|30|0|1406|0.7|1.2",
    )
    touch(root, "OAS2_0018_MR1/mpr-1.nii.gz", "OAS2_0018_MR3/mpr-1.nii.gz")
    subjects = read_subjects(root)
    assert [(s.session, s.age, s.diagnosis) for s in subjects] == [("MR1", 87.0, "CN"), ("MR3", 88.0, "AD")]


def test_oasis_3_counts_days_from_entry(tmp_path: Path) -> None:
    root = tmp_path / "oasis3"
    table(root / "demographics.csv", "OASISID|AgeatEntry|GENDER", "OAS30001|65.19|2", "OAS30002|67.25|1")
    table(
        root / "clinical.csv",
        "OASISID|days_to_visit|CDRTOT|MMSE|dx1",
        "OAS30001|0|0|29|Cognitively normal",
        "OAS30001|3000|0.5|25|AD Dementia",
        "OAS30002|400|0.5|27|uncertain dementia",
        "OAS30002|2000|1|20|AD Dementia",
    )
    touch(
        root, "sub-x/placeholder.txt", "OAS30001_MR_d0129/anat/sub-OAS30001_T1w.nii.gz", "OAS30001_MR_d2990/T1.nii.gz"
    )
    touch(root, "OAS30002_MR_d0653/T1.nii.gz", "OAS30009_MR_d0001/T1.nii.gz")
    found = read_subject_table(root, layout="oasis3")
    people = by_name(list(found.subjects))
    assert people["OAS30001 d0129"].age == pytest.approx(65.19 + 129 / 365.25)
    assert [people[n].diagnosis for n in ("OAS30001 d0129", "OAS30001 d2990", "OAS30002 d0653")] == [
        "CN",
        "AD",
        "impaired",
    ]
    assert (people["OAS30001 d0129"].sex, people["OAS30002 d0653"].sex) == ("F", "M")
    assert len(found.skipped) == 1


def test_ncanda_names_visits_in_two_ways(tmp_path: Path) -> None:
    root = tmp_path / "ncanda"
    table(
        root / "demographics.csv",
        "subject|visit|visit_age|sex|arm",
        "NCANDA_S00033|followup_1y|19.4|F|standard",
        "NCANDA_S00033|baseline|18.3|F|standard",
        "NCANDA_S00034|baseline|17.1|M|recovery",
        "NCANDA_S00035|baseline|16.0|M|standard",
    )
    table(
        root / "cahalan.csv", "subject|visit|cahalan", "NCANDA_S00033|0|control", "NCANDA_S00033|1|heavy_with_binging"
    )
    touch(root, "NCANDA_S00033/standard/baseline/t1.nii.gz", "NCANDA_S00033/standard/followup_1y/t1.nii.gz")
    touch(root, "NCANDA_S00034/recovery/baseline/t1.nii.gz")
    found = read_subject_table(root)
    assert found.layout == "ncanda"
    assert [(s.session, s.age, s.diagnosis) for s in found.subjects] == [
        ("baseline", 18.3, "control"),
        ("followup_1y", 19.4, "heavy_with_binging"),
    ]
    assert {why for _, why in found.skipped} == {"is of the arm recovery", "has no scan"}


def test_a_table_and_a_folder(tmp_path: Path) -> None:
    table(
        tmp_path / "people.csv",
        "id|age|sex|site|file",
        "p1|60|F|x|",
        "p10|61|M|y|",
        "p2|n/a|F|x|deep/other.nii.gz",
        "p3|44|F|x|",
    )
    touch(tmp_path, "scans/p1_t1.nii.gz", "scans/p1_t2.nii.gz", "scans/p1_seg.nii.gz", "scans/p10_t1.nii.gz")
    touch(tmp_path, "scans/deep/other.nii.gz")
    found = read_subject_table(tmp_path / "people.csv", images=tmp_path / "scans")
    people = by_name(list(found.subjects))
    assert [str(s.path.name) for s in people.values() if s.path] == ["p1_t1.nii.gz", "p10_t1.nii.gz", "other.nii.gz"]
    assert people["p2"].age is None
    assert people["p10"].values["site"] == "y"
    assert found.skipped[0][0] == "p3"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["id|age", "p1|60", "p1|61"], "id = p1 stood already in line 2"),
        (["id|session|age", "p1|a|60", "p1|a|61"], "has p1 a twice"),
        (["id|path", "p1|scans/p1.nii.gz", "p2|scans/p1.nii.gz"], "a scan has one owner"),
        (["name|age", "p1|60"], "lacks a column id"),
        (["id|age", "nobody|60"], "none of the 1 rows"),
        (["id;age", "p1;60"], "lacks a column id"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_sentence(tmp_path: Path, lines: list[str], words: str) -> None:
    table(tmp_path / "people.csv", *lines)
    touch(tmp_path, "scans/p1.nii.gz", "scans/a/p1.nii.gz" if "session" in lines[0] else "scans/p9.nii.gz")
    if "session" in lines[0]:
        (tmp_path / "scans/p1.nii.gz").unlink()
    with pytest.raises(InputError, match=words) as caught:
        read_subjects(tmp_path / "people.csv")
    assert str(caught.value).count("\n") == 0


def test_a_folder_without_a_table_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no BIDS root and holds no CSV table"):
        layout_of(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_subjects(tmp_path / "nothing")


def test_days_in_the_forms_that_are_met() -> None:
    days = {date_of(text) for text in ("2005-09-08", "9/8/2005", "20050908", "2005-09-08T11:00:00")}
    assert [str(day) for day in days] == ["2005-09-08"]
    assert date_of("2005-13-40") is None
    assert date_of("soon") is None
